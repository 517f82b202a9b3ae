// Moments as cards: a small picture that plays silently under the pointer, and with sound on click.

import { clock, counted, day, el, icon, isCalm } from "./lib.js";
import { Player } from "./player.js";

const HOVER_DELAY = 120;

// What plays now, if anything: one at a time.
let current = null;

export function stop() {
  if (!current) return;
  const { shot, player, video, delay } = current;
  current = null;
  clearTimeout(delay);
  player?.close();
  video?.remove();
  shot.classList.remove("plays", "loud", "waiting");
  shot.setAttribute("aria-pressed", "false");
}

function start(shot, info, isLoud) {
  if (current?.shot === shot && current.player) {
    current.isLoud ||= isLoud;
    if (isLoud) loud();
    return;
  }
  stop();
  current = { shot, isLoud, delay: setTimeout(() => begin(shot, info), isLoud ? 0 : HOVER_DELAY) };
}

function begin(shot, info) {
  const video = el("video", { playsinline: true, disablepictureinpicture: true, tabindex: "-1", "aria-hidden": "true" });
  video.muted = true;
  const span = { start: info.start ?? 0, end: Math.max(info.end ?? info.duration, (info.start ?? 0) + 0.5) };
  shot.append(video);
  const on = {
    time: (player) => {
      if (player.video.readyState >= 2 && !player.video.seeking) shot.classList.add("plays");
      const share = (player.time - span.start) / (span.end - span.start);
      shot.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
    },
    playing: () => shot.classList.remove("waiting"),
    waiting: () => shot.classList.add("waiting"),
    failed: () => fail(shot),
  };
  Object.assign(current, { video, player: new Player(video, info, { at: span.start, span, on }) });
  current.player.play();
  if (current.isLoud) loud();
}

function loud() {
  const { shot, video, player } = current;
  video.muted = false;
  shot.classList.add("loud");
  shot.setAttribute("aria-pressed", "true");
  player.play();
}

function fail(shot) {
  stop();
  shot.querySelector(".time").textContent = "cannot be played";
}

function press(shot, info) {
  if (current?.shot === shot && current.player && current.isLoud) stop();
  else start(shot, info, true);
}

// A card. `open` and `like` are called with what it shows.
export function card(info, { best = 1, open, like, address }) {
  const isMoment = info.start !== undefined;
  const when = isMoment ? `${clock(info.start)} – ${clock(info.end)}` : clock(info.duration);
  const label = isMoment ? `Play ${clock(info.start)} to ${clock(info.end)} of ${info.name}` : `Play ${info.name}`;
  const shot = el(
    "button",
    { type: "button", class: "shot", "aria-label": label, "aria-pressed": "false" },
    el("img", { src: `/picture/${info.id}/${info.number}?v=${info.take}`, alt: "", loading: "lazy", decoding: "async" }),
    el("span", { class: "waits" }),
    el("span", { class: "ear" }, icon("sound")),
    el("span", { class: "time" }, when),
    el("span", { class: "played" }),
  );
  const hover = (event) => event.pointerType !== "touch" && !isCalm() && !(current?.isLoud && current.shot !== shot) && start(shot, info, false);
  shot.addEventListener("pointerenter", hover);
  shot.addEventListener("pointerleave", () => current?.shot === shot && !current.isLoud && stop());
  shot.addEventListener("focus", () => shot.matches(":focus-visible") && !isCalm() && start(shot, info, false));
  shot.addEventListener("blur", () => current?.shot === shot && stop());
  shot.addEventListener("click", () => press(shot, info));
  shot.addEventListener("dblclick", () => open(info));
  shot.info = info;
  const facts = [info.folder, day(info.date)].filter(Boolean).join(" · ");
  const fit = isMoment && el("span", { class: "fit", title: `score ${info.score.toFixed(3)}` }, el("i"));
  if (fit) fit.firstChild.style.setProperty("--share", String(Math.min(1, Math.max(0.04, info.score / best))));
  const name = el("a", { class: "name", href: address, title: info.name, onclick: (event) => follow(event, () => open(info)) }, info.name);
  const more = el("button", { type: "button", class: "quiet", title: "More like this moment", "aria-label": `More like this moment of ${info.name}`, onclick: () => like(info) }, icon("like"));
  const small = el("small", {}, fit || null, isMoment ? el("span", { class: "hidden" }, `score ${info.score.toFixed(3)}, `) : null, facts);
  return el("li", { class: "card" }, shot, el("div", { class: "about" }, name, more, small));
}

// Follows a link within the page, unless it is to be opened elsewhere.
export function follow(event, act) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  act();
}

// A list of cards, all with the usual shape of their videos.
export function grid(infos, options) {
  const best = Math.max(0.0001, ...infos.map((info) => info.score ?? 0));
  const list = el("ol", { class: "grid", role: "list" }, infos.map((info) => card(info, { ...options, best, address: options.address(info) })));
  const shapes = infos.map((info) => info.width / info.height).filter((one) => one > 0).sort((a, b) => a - b);
  const usual = shapes[Math.floor(shapes.length / 2)] || 1.6;
  list.style.setProperty("--ratio", String(Math.min(1.78, Math.max(1, usual))));
  return list;
}

export function ghosts(count = 8) {
  const one = () => el("li", { class: "card ghost", "aria-hidden": "true" }, el("div", { class: "shot" }), el("div", { class: "about" }));
  return el("ol", { class: "grid" }, Array.from({ length: count }, one));
}

export const found = (count) => counted(count, "moment");

// Moves the focus among the cards, as they lie on the screen. Whether there was one to go to.
export function move(key) {
  const shots = [...document.querySelectorAll("main .card:not(.ghost) .shot")];
  if (!shots.length) return false;
  const at = shots.indexOf(document.activeElement);
  if (at < 0) {
    shots[0].focus();
    return true;
  }
  const row = shots.filter((one) => Math.abs(one.offsetTop - shots[0].offsetTop) < 4).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[key];
  const next = shots[at + step];
  if (!next) return false;
  next.focus();
  next.scrollIntoView({ block: "nearest", behavior: isCalm() ? "auto" : "smooth" });
  return true;
}
