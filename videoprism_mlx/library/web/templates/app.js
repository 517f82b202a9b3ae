// The page: what is searched for is in the address, and what is shown follows from the address.

import { ask, byId, counted, el, icon, number, say, sentence } from "./lib.js";
import { settings } from "./player.js";
import { follow, found, ghosts, grid, move, stop } from "./results.js";
import { VideoView } from "./video.js";

const FILTERS = ["folder", "after", "before", "longer", "shorter", "all"];
const QUERY = ["q", "like", "upload", "name"];
const LENGTHS = { "": "any length", 5: "5 s", 15: "15 s", 30: "30 s", 60: "1 min", 300: "5 min", 900: "15 min", 1800: "30 min", 3600: "1 h" };
const PAGE = 24;
const TYPING = 220;
const hasPointer = matchMedia("(pointer: fine)").matches;

const main = byId("main");
const input = byId("query");
const fields = byId("fields");

let state = {};
let view = null; // The video that is shown.
let asking = null; // What stops the request in progress.
let status = { examples: [], videos: 0 };
let known = null; // The status when the results were fetched.
let typing = 0;
const dropped = new Map(); // Pictures of uploads, by their keys.

// The address.

function read() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries([...given].filter(([name, value]) => value && [...QUERY, ...FILTERS, "k", "v", "t"].includes(name)));
}

function address(next) {
  const given = Object.entries(next).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return given.length ? `/?${new URLSearchParams(given)}` : "/";
}

function go(next, { replace = false, quiet = false } = {}) {
  if (address(next) === address(state)) return quiet ? undefined : show();
  history.replaceState({ ...history.state, scroll: scrollY }, "");
  if (replace) history.replaceState(history.state, "", address(next));
  else history.pushState({ inside: true }, "", address(next));
  return show({ quiet });
}

const only = (names) => Object.fromEntries(Object.entries(state).filter(([name]) => names.includes(name)));
const filters = () => only(FILTERS);
const query = () => only(QUERY);
const isSearch = (given) => Boolean(given.q || given.like || given.upload);

// What is shown.

async function show({ scroll = 0, quiet = false } = {}) {
  const before = state;
  state = read();
  stop();
  view?.close();
  view = null;
  asking?.abort();
  asking = new AbortController();
  fill();
  const { signal } = asking;
  try {
    if (state.v) await showVideo(signal);
    else if (isSearch(state)) await showResults(signal, before);
    else await showStart(signal);
    if (!signal.aborted) scrollTo(0, scroll);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted || quiet) return; // Whoever types is not done.
    console.info(error.message);
    message("wrong", "That did not work", error.message, el("button", { type: "button", class: "go", onclick: () => show() }, "Try again"));
    say(error.message);
  }
}

function message(kind, title, text, ...more) {
  document.title = title;
  main.replaceChildren(el("section", { class: `message ${kind}` }, icon(kind), el("h1", {}, title), el("p", {}, text), ...more));
}

const cards = {
  open: (info) => go({ ...query(), ...filters(), v: info.id, t: (info.start ?? 0).toFixed(1) }),
  like: (info) => go({ ...filters(), like: `${info.id}:${info.number}`, name: info.name }),
  address: (info) => address({ ...query(), ...filters(), v: info.id, t: (info.start ?? 0).toFixed(1) }),
};

async function showStart(signal) {
  document.title = "Videos";
  const [{ videos }, now] = await Promise.all([ask("/api/newest", {}, { signal }), ask("/api/status", {}, { signal })]);
  told(now);
  known = now.videos;
  if (!videos.length) {
    const line = now.adding ? "The first videos are being added." : "Add some, and they appear here.";
    main.replaceChildren(el("section", { class: "start" }, el("h1", {}, "No videos yet"), el("p", {}, line), el("code", {}, "videoprism-mlx index FOLDER")));
    return;
  }
  const examples = now.examples.map((text) => el("a", { href: address({ q: text }), onclick: (event) => follow(event, () => go({ ...filters(), q: text })) }, text));
  main.replaceChildren(
    el(
      "section",
      { class: "start" },
      el("h1", {}, "Find a moment by saying what happens"),
      el("p", {}, `${counted(now.videos, "video")}, ${counted(now.moments, "moment")}. Or ${hasPointer ? "drop a picture or a short clip anywhere" : "search by a picture or a short clip"}.`),
      el("div", { class: "examples", role: "group", "aria-label": "Examples" }, examples),
    ),
    el("section", {}, el("div", { class: "heading" }, el("h2", {}, "Newest videos")), grid(videos, cards)),
  );
}

function asked() {
  if (state.like) return `like a moment of ${state.name || "a video"}`;
  if (state.upload) return `like ${state.name || "your file"}`;
  return `“${state.q}”`;
}

async function showResults(signal, before) {
  document.title = `${state.q || asked()} – Videos`;
  const isNew = before.v || !isSearch(before) || !main.querySelector(".grid");
  const waiting = isNew && setTimeout(() => main.replaceChildren(el("div", { class: "heading" }, el("h1", {}, "Searching")), ghosts()), 150);
  const began = performance.now();
  let answer;
  try {
    answer = await ask("/api/search", { ...state, name: "", k: state.k || PAGE }, { signal });
  } finally {
    clearTimeout(waiting);
  }
  const seconds = (performance.now() - began) / 1000;
  known = status.model === undefined ? null : status.videos;
  const { moments, more, unknown } = answer;
  if (!moments.length) {
    const hasFilters = Object.keys(filters()).length;
    const text = hasFilters ? "No video fits the filters." : "There are no videos in the library yet.";
    message("none", "Nothing found", text, hasFilters ? el("button", { type: "button", class: "go", onclick: () => go(query()) }, "Clear the filters") : null);
    say("Nothing found");
    return;
  }
  const heading = el(
    "div",
    { class: "heading" },
    el("h1", {}, `${found(moments.length)} ${state.like || state.upload ? asked() : `for ${asked()}`}`),
    el("small", {}, `${Math.max(seconds, 0.01).toFixed(2)} s`),
  );
  const again = more && el("div", { class: "more" }, el("button", { type: "button", class: "quiet text", onclick: () => onward() }, "More"));
  const strange = unknown.length ? `The model of this library does not know ${unknown.map((word) => `“${word}”`).join(", ")}.` : "";
  main.replaceChildren(heading, strange ? el("p", { class: "strange" }, strange) : "", grid(moments, cards), again || "");
  say(`${found(moments.length)} ${asked()}${strange && `. ${strange}`}`);
}

async function onward() {
  const at = main.querySelectorAll(".card").length;
  const here = scrollY;
  await go({ ...state, k: Math.min(200, Number(state.k || PAGE) + PAGE) }, { replace: true });
  scrollTo(0, here);
  main.querySelectorAll(".card .shot")[at]?.focus({ preventScroll: true });
}

async function showVideo(signal) {
  const answer = await ask(`/api/video/${encodeURIComponent(state.v)}`, query().name ? { ...query(), name: "" } : query(), { signal });
  document.title = `${answer.video.name} – Videos`;
  const at = Math.max(0, Number(state.t) || 0);
  view = new VideoView(answer, {
    at,
    title: isSearch(state) ? "Results" : "Videos",
    back: () => (history.state?.inside ? history.back() : go({ ...query(), ...filters() })),
    like: cards.like,
    moved: remember,
  });
  main.replaceChildren(view.element);
  view.begin();
}

// Keeps the time in the address, now and then.
let remembered = 0;
function remember(time) {
  if (!state.v || Date.now() - remembered < 1000) return;
  remembered = Date.now();
  history.replaceState(history.state, "", address({ ...state, t: time.toFixed(1) }));
}

// The search box and the filters.

function fill() {
  if (document.activeElement !== input || state.v || !typing) input.value = state.q || "";
  const chip = byId("chip");
  chip.hidden = !(state.like || state.upload);
  if (!chip.hidden) {
    const [id, which] = (state.like || "").split(":");
    const source = state.like ? `/picture/${encodeURIComponent(id)}/${encodeURIComponent(which)}` : dropped.get(state.upload);
    const remove = el("button", { type: "button", "aria-label": "Remove", onclick: () => go(filters()) }, icon("close"));
    chip.replaceChildren(source ? el("img", { src: source, alt: "" }) : "", el("span", {}, state.name || "a moment"), remove);
  }
  input.placeholder = chip.hidden ? "Say what happens in the video" : "";
  for (const name of FILTERS) {
    const field = fields.elements[name];
    if (field.type === "checkbox") field.checked = state[name] === "1";
    else if (name === "folder" && state.folder && ![...field.options].some((one) => one.value === state.folder)) field.append(el("option", { value: state.folder }, state.folder));
    if (field.type !== "checkbox") field.value = state[name] || "";
  }
  const count = Object.keys(filters()).length;
  byId("filtered").hidden = !count;
  byId("filtered").textContent = String(count);
}

function search(isTyped) {
  clearTimeout(typing);
  typing = 0;
  const q = input.value.trim();
  if (!q && (state.like || state.upload)) return;
  const isRefined = isTyped && state.q && !state.v;
  typing = isTyped ? 1 : 0;
  go(q ? { ...filters(), q } : filters(), { replace: isRefined, quiet: isTyped });
  typing = 0;
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search(false);
});
input.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search(true), TYPING);
});
fields.addEventListener("submit", (event) => event.preventDefault());
fields.addEventListener("change", () => {
  const given = [...new FormData(fields)].filter(([, value]) => value);
  go({ ...query(), ...Object.fromEntries(given) });
});
byId("clear").addEventListener("click", () => go(query()));
byId("brand").addEventListener("click", (event) => follow(event, () => go({})));
byId("filters").addEventListener("toggle", async (event) => {
  if (!event.target.open) return;
  const { folders } = await ask("/api/folders").catch(() => ({ folders: [] }));
  const field = fields.elements.folder;
  field.replaceChildren(el("option", { value: "" }, "All folders"), ...folders.map((one) => el("option", { value: one.path }, `${one.name} (${number(one.videos)})`)));
  field.value = state.folder || "";
});
for (const name of ["longer", "shorter"]) {
  fields.elements[name].append(...Object.entries(LENGTHS).sort(([a], [b]) => a - b).map(([value, text]) => el("option", { value }, text)));
}

// Files that are dropped.

async function upload(file) {
  if (!file) return;
  if (status.uploadBytes && file.size > status.uploadBytes) {
    message("wrong", "That did not work", `${file.name} is too large: at most ${Math.floor(status.uploadBytes / 2 ** 20)} MB can be searched by.`);
    return;
  }
  byId("chip").hidden = true; // It shows the earlier query.
  main.replaceChildren(el("div", { class: "heading" }, el("h1", {}, `Looking at ${file.name}`)), ghosts());
  say(`Looking at ${file.name}`);
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const { key } = await ask("/api/upload", {}, { method: "POST", body: file, headers });
    if (file.type.startsWith("image/")) dropped.set(key, URL.createObjectURL(file));
    go({ ...filters(), upload: key, name: file.name });
  } catch (error) {
    message("wrong", "That did not work", sentence(error.message), el("button", { type: "button", class: "go", onclick: () => show() }, "Back"));
    say(error.message);
  }
}

let depth = 0;
const overlay = (isShown) => (byId("drop").hidden = !isShown);
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => holdsFiles(event) && overlay(++depth > 0));
addEventListener("dragleave", (event) => holdsFiles(event) && overlay((depth = Math.max(0, depth - 1)) > 0));
addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  overlay((depth = 0) > 0);
  upload(event.dataTransfer?.files[0]);
});
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  upload(event.target.files[0]);
  event.target.value = "";
});

// Keys.

addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || byId("help").open) return;
  const isTyping = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (isTyping) event.target.blur();
    else if (document.fullscreenElement) return;
    else if (view) main.querySelector(".one .top button").click();
    else stop();
    return;
  }
  if (isTyping && !(event.key === "?" && event.target === input && !input.value)) {
    if (event.target === input && event.key === "ArrowDown" && move("ArrowDown")) event.preventDefault();
    return;
  }
  const shot = document.activeElement?.closest?.(".shot");
  if (event.key === "/") input.focus();
  else if (event.key === "?") byId("help").showModal();
  else if (view?.key(event)) return event.preventDefault();
  else if (!view && event.key.startsWith("Arrow") && (shot || event.target === document.body || event.target === main)) {
    if (!move(event.key)) return;
  } else if (shot?.info && event.key === "o") cards.open(shot.info);
  else if (shot?.info && event.key === "l") cards.like(shot.info);
  else return;
  event.preventDefault();
});
byId("keys").addEventListener("click", () => byId("help").showModal());

// How things stand: another process may be adding videos.

function told(now) {
  status = now;
  known ??= now.videos;
  settings.previewLength = now.previewLength;
  const line = byId("status");
  const text = `${counted(now.videos, "video")}${now.adding ? ", adding more" : ""}`;
  if (line.dataset.text === text) return;
  line.dataset.text = text;
  line.replaceChildren(now.adding ? el("span", { class: "dot" }) : "", text);
  line.title = `${counted(now.moments, "moment")}${now.errors ? `, ${counted(now.errors, "video")} cannot be read` : ""}`;
}

async function poll() {
  try {
    if (document.visibilityState === "visible") {
      told(await ask("/api/status"));
      if (status.videos !== known && !view) grown();
    }
  } catch {
    // The server is away. Whoever searches is told.
  }
  setTimeout(poll, status.adding ? 1500 : 4000);
}

function grown() {
  if (!isSearch(state)) {
    if (!main.querySelector(".grid") || scrollY < 40) show({ scroll: scrollY });
    return;
  }
  const heading = main.querySelector(".heading");
  if (!heading || heading.querySelector(".again")) return;
  heading.append(el("button", { type: "button", class: "quiet text again", onclick: () => show() }, "New videos: search again"));
}

addEventListener("popstate", () => show({ scroll: history.state?.scroll || 0 }));
history.scrollRestoration = "manual";

// The token is in a cookie by now.
const given = new URLSearchParams(location.search);
if (given.has("token")) {
  given.delete("token");
  history.replaceState({}, "", given.size ? `/?${given}` : "/");
}
if (hasPointer && !location.search) input.focus();
await show();
poll();
