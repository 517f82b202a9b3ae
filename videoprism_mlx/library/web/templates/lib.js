// Elements, words and numbers. Whatever comes from the server is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  play: ["M8 5.5v13l10.5-6.5z"],
  pause: ["M8.5 5.5v13", "M15.5 5.5v13"],
  sound: ["M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z", "M15.5 9a4.2 4.2 0 0 1 0 6", "M18 6.5a7.8 7.8 0 0 1 0 11"],
  silent: ["M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z", "m16 9.5 5 5", "m21 9.5-5 5"],
  full: ["M4 9V4.5h4.5", "M20 9V4.5h-4.5", "M4 15v4.5h4.5", "M20 15v4.5h-4.5"],
  like: ["M3.5 10c2.8-3.4 5.7-3.4 8.5-1.2s5.7 2.2 8.5-1.2", "M3.5 16.4c2.8-3.4 5.7-3.4 8.5-1.2s5.7 2.2 8.5-1.2"],
  back: ["M19 12H5", "m11 6-6 6 6 6"],
  close: ["m6 6 12 12", "M18 6 6 18"],
  none: ["M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z", "m15.5 15.5 5 5", "M8 10.5h5"],
  wrong: ["M12 4 2.5 20h19z", "M12 10v4.5", "M12 17.4v.1"],
  film: ["M4 5h16v14H4z", "M8 5v14", "M16 5v14", "M4 12h16"],
};

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function icon(name) {
  const paths = ICONS[name].map((d) => svg("path", { d }));
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, ...paths);
}

// An element. Attributes that begin with "on" are listeners; false and null leave one out.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export const number = (value) => value.toLocaleString("en");

export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function day(seconds) {
  const form = { year: "numeric", month: "short", day: "numeric" };
  return seconds ? new Date(seconds * 1000).toLocaleDateString(undefined, form) : "";
}

export const bytes = (size) => (size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(1)} GB`);

export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Tells screen readers what has changed.
export function say(text) {
  byId("live").textContent = text;
}

// What the server answers. Raises Error with its message if it refuses.
export async function ask(path, parameters = {}, options = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const address = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is videoprism-mlx serve still running?");
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok) throw new Error(sentence(answer.error || `the server answers ${response.status}`));
  return answer;
}

export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
