// One video: the player, and its timeline with the score over time.

import { bytes, clock, day, el, icon, isCalm, say, svg } from "./lib.js";
import { Player } from "./player.js";

const FILM = 10; // Small pictures along the timeline.
const PEAKS = 6;

// The view of a video, and what it does. `like` is called with the moment that is shown.
export class VideoView {
  constructor({ video: info, timeline }, { at, back, like, moved, title }) {
    Object.assign(this, { info, timeline, moved, like });
    this.video = el("video", { playsinline: true, preload: "auto", tabindex: "-1", "aria-label": info.name });
    this.waits = el("p", { class: "waits", role: "status" });
    this.stage = el("div", { class: "stage" }, this.video, this.waits);
    if (info.width && info.height) this.stage.style.setProperty("--shape", String(info.width / info.height));
    const line = this.drawLine();
    this.element = el(
      "article",
      { class: "one" },
      el("div", { class: "top" }, el("button", { type: "button", class: "quiet text", onclick: back }, icon("back"), title)),
      el("div", {}, el("h1", { tabindex: "-1" }, info.name), this.facts()),
      this.stage,
      line,
      this.drawControls(),
      this.drawPeaks(),
    );
    this.player = new Player(this.video, info, {
      at,
      on: {
        time: () => this.show(),
        playing: () => this.wait("") || this.show(),
        waiting: (player) => this.wait(player.isPreview ? "Making a preview that this browser can play" : ""),
        paused: () => this.show(),
        volume: () => this.show(),
        failed: () => this.wait("This video cannot be played: it may have changed since it was indexed"),
      },
    });
    this.video.addEventListener("loadeddata", () => this.wait(""));
    this.video.addEventListener("click", () => this.player.toggle());
    this.show();
  }

  wait(text) {
    this.stage.classList.toggle("waiting", Boolean(text));
    this.waits.textContent = text;
  }

  facts() {
    const { folder, date, width, height, duration, codec, size } = this.info;
    const shape = width && height ? `${width} × ${height}` : "";
    const told = [folder, day(date), clock(duration), shape, codec, bytes(size)].filter(Boolean);
    return el("p", { class: "facts" }, told.map((one) => el("span", {}, one)));
  }

  drawControls() {
    const button = (name, label, act) => el("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick: act }, icon(name));
    this.playButton = button("play", "Play", () => this.player.toggle());
    this.soundButton = button("sound", "Sound off", () => this.mute());
    this.clock = el("span", { class: "clock" });
    return el(
      "div",
      { class: "controls", role: "group", "aria-label": "Player" },
      this.playButton,
      this.soundButton,
      button("full", "Full screen", () => this.full()),
      this.clock,
      el("button", { type: "button", class: "quiet text", onclick: () => this.more() }, icon("like"), "More like this moment"),
    );
  }

  drawLine() {
    const { info } = this;
    const timeline = this.timeline?.scores.length > 1 ? this.timeline : null; // One score is no curve.
    const curve = svg("svg", { class: timeline ? "curve" : "curve flat", viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    if (timeline) {
      const path = this.curvePath();
      curve.append(
        svg("path", { class: "base", d: "M0 100H1000" }),
        svg("path", { class: "area", d: `${path}L1000 100L0 100Z` }),
        svg("path", { class: "edge", d: path }),
      );
    }
    this.hint = el("span", { class: "hint", hidden: true });
    this.line = el(
      "div",
      { class: "line", role: "slider", tabindex: "0", "aria-label": timeline ? "Time, with the score of each moment" : "Time", "aria-valuemin": "0", "aria-valuemax": info.duration.toFixed(1) },
      curve,
      this.film(),
      el("span", { class: "head" }),
      this.hint,
    );
    const at = (event) => {
      const box = this.line.getBoundingClientRect();
      return (Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) || 0) * info.duration;
    };
    this.line.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.line.setPointerCapture(event.pointerId);
      this.isDragged = true;
      this.player.seek(at(event));
    });
    this.line.addEventListener("pointermove", (event) => {
      this.tellAt(at(event));
      if (this.isDragged) this.player.seek(at(event));
    });
    for (const name of ["pointerup", "pointercancel"]) this.line.addEventListener(name, () => (this.isDragged = false));
    this.line.addEventListener("pointerleave", () => (this.hint.hidden = true));
    this.line.addEventListener("keydown", (event) => this.lineKey(event));
    const ends = el("div", { class: "ticks", "aria-hidden": "true" }, el("span", {}, "0:00"), el("span", {}, clock(info.duration)));
    return el("div", {}, this.line, ends);
  }

  // The scores as a line in a box of 1000 x 100: through the middle of each window.
  curvePath() {
    const { starts, ends, scores } = this.timeline;
    const low = Math.min(...scores);
    const span = Math.max(...scores) - low || 1;
    const x = (seconds) => ((1000 * seconds) / Math.max(this.info.duration, 0.001)).toFixed(2);
    const y = (score) => (94 - (86 * (score - low)) / span).toFixed(2);
    const points = scores.map((score, i) => `${x((starts[i] + ends[i]) / 2)} ${y(score)}`);
    return `M0 ${y(scores[0])}L${points.join("L")}L1000 ${y(scores.at(-1))}`;
  }

  film() {
    const { info } = this;
    // Few moments are there several times, as a wide picture would show little.
    const count = Math.min(FILM, info.moments * Math.max(1, Math.floor(FILM / info.moments)));
    const numbers = Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) * info.moments) / count));
    const pictures = numbers.map((one) => el("img", { src: `/picture/${info.id}/${one}?v=${info.take}`, alt: "", decoding: "async", draggable: "false" }));
    return el("div", { class: "film", "aria-hidden": "true" }, pictures);
  }

  drawPeaks() {
    this.peaks = [];
    if (!this.timeline) return null;
    const { starts, scores } = this.timeline;
    const isPeak = (i) => scores[i] >= (scores[i - 1] ?? -2) && scores[i] > (scores[i + 1] ?? -2);
    const best = scores.map((_, i) => i).filter(isPeak).sort((a, b) => scores[b] - scores[a]).slice(0, PEAKS);
    this.peaks = best.sort((a, b) => starts[a] - starts[b]);
    if (this.peaks.length < 2) return null;
    this.peakButtons = this.peaks.map((i) =>
      el("button", { type: "button", title: `score ${scores[i].toFixed(3)}`, "aria-label": `Go to ${clock(starts[i])}, score ${scores[i].toFixed(3)}`, onclick: () => this.go(starts[i]) }, clock(starts[i])),
    );
    return el("div", { class: "peaks" }, el("span", {}, "Fits best at"), this.peakButtons);
  }

  tellAt(seconds) {
    const window = this.windowAt(seconds);
    const score = this.timeline && window >= 0 ? `  ·  ${this.timeline.scores[window].toFixed(3)}` : "";
    this.hint.textContent = clock(seconds) + score;
    this.hint.style.setProperty("--at", String(seconds / Math.max(this.info.duration, 0.001)));
    this.hint.hidden = false;
  }

  // The number of the window that is shown, in the order of time.
  windowAt(seconds) {
    if (!this.timeline) return Math.min(this.info.moments - 1, Math.floor((seconds / Math.max(this.info.duration, 0.001)) * this.info.moments));
    const after = this.timeline.starts.findIndex((start) => start > seconds + 0.01);
    return (after < 0 ? this.timeline.starts.length : after) - 1;
  }

  show() {
    if (!this.player) return;
    const { time } = this.player;
    const { duration } = this.info;
    this.line.style.setProperty("--at", String(Math.min(1, time / Math.max(duration, 0.001))));
    this.line.setAttribute("aria-valuenow", time.toFixed(1));
    const window = this.windowAt(time);
    const score = this.timeline && window >= 0 ? `, score ${this.timeline.scores[window].toFixed(3)}` : "";
    this.line.setAttribute("aria-valuetext", `${clock(time)} of ${clock(duration)}${score}`);
    this.clock.replaceChildren(clock(time), el("span", {}, ` / ${clock(duration)}`));
    this.face(this.playButton, this.video.paused ? "play" : "pause", this.video.paused ? "Play" : "Pause");
    this.face(this.soundButton, this.video.muted ? "silent" : "sound", this.video.muted ? "Sound on" : "Sound off");
    this.peakButtons?.forEach((button, i) => button.setAttribute("aria-current", String(this.peaks[i] === window)));
    this.moved(time);
  }

  face(button, name, label) {
    if (button.dataset.face === name) return;
    button.dataset.face = name;
    button.replaceChildren(icon(name));
    button.setAttribute("aria-label", label);
    button.title = label;
  }

  go(seconds) {
    this.player.seek(seconds);
    this.player.play();
  }

  mute() {
    this.video.muted = !this.video.muted;
  }

  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.stage.requestFullscreen?.().catch(() => {});
  }

  more() {
    this.like({ ...this.info, number: Math.max(0, this.windowAt(this.player.time)) });
  }

  peak(step) {
    if (!this.peaks.length) return;
    const { starts } = this.timeline;
    const { time } = this.player;
    const ahead = this.peaks.filter((i) => starts[i] > time + 0.3);
    const behind = this.peaks.filter((i) => starts[i] < time - 1);
    const next = step > 0 ? ahead[0] : behind.at(-1);
    if (next !== undefined) this.go(starts[next]);
  }

  lineKey(event) {
    const to = { Home: 0, End: this.info.duration, PageUp: this.player.time + 30, PageDown: this.player.time - 30, ArrowUp: this.player.time + 5, ArrowDown: this.player.time - 5 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.player.seek(to);
  }

  // Whether the key was one of this view.
  key(event) {
    const step = event.shiftKey ? 1 : 5;
    const acts = {
      " ": () => this.player.toggle(),
      k: () => this.player.toggle(),
      ArrowLeft: () => this.player.seek(this.player.time - step),
      ArrowRight: () => this.player.seek(this.player.time + step),
      n: () => this.peak(1),
      p: () => this.peak(-1),
      m: () => this.mute(),
      f: () => this.full(),
      l: () => this.more(),
    };
    const act = acts[event.key];
    if (!act || (event.key === " " && event.target.closest("button, a"))) return false;
    act();
    return true;
  }

  begin() {
    this.element.querySelector("h1").focus({ preventScroll: true });
    if (!isCalm()) this.player.play();
    say(`${this.info.name}, ${clock(this.info.duration)}`);
  }

  close() {
    this.player.close();
  }
}
