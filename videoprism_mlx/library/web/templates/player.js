// Plays a video from its original file or, if the browser cannot, from previews of the server:
// a few seconds each, one after the other.

const PLAYABLE = new Set(["h264", "vp8", "vp9", "av1", "theora"]);
const UNPLAYABLE_TYPES = new Set(["video/x-msvideo", "video/mpeg", "application/octet-stream", "image/gif"]);

// Videos of which the browser has shown that it cannot play them.
const failed = new Set();

export const settings = { previewLength: 10 };

function needsPreview(info, video) {
  if (failed.has(info.id) || UNPLAYABLE_TYPES.has(info.type)) return true;
  if (info.codec === "hevc") return video.canPlayType('video/mp4; codecs="hvc1.1.6.L93.B0"') === "";
  return Boolean(info.codec) && !PLAYABLE.has(info.codec);
}

export class Player {
  // `span` is repeated, if there is one. `on` may have time, waiting, playing and failed.
  constructor(video, info, { at = 0, span = null, on = {} } = {}) {
    Object.assign(this, { video, info, span, on, offset: 0, part: -1, wanted: at, isPreview: false, isGone: false });
    this.listeners = {
      loadedmetadata: () => this.begin(),
      timeupdate: () => this.tick(),
      seeked: () => this.tick(),
      ended: () => this.onward(),
      waiting: () => this.tell("waiting"),
      playing: () => this.tell("playing"),
      pause: () => this.tell("paused"),
      volumechange: () => this.tell("volume"),
      error: () => this.fail(),
    };
    for (const [name, listener] of Object.entries(this.listeners)) video.addEventListener(name, listener);
    this.isPreview = needsPreview(info, video);
    this.load();
  }

  get time() {
    return this.video.readyState ? this.video.currentTime + this.offset : this.wanted;
  }

  tell(name) {
    this.on[name]?.(this);
  }

  load() {
    const version = `v=${this.info.take}`;
    this.tell("waiting");
    if (this.isPreview) {
      const most = Math.max(0, Math.ceil(this.info.duration / settings.previewLength) - 1);
      this.part = Math.min(most, Math.floor(this.wanted / settings.previewLength));
      this.offset = this.part * settings.previewLength;
      this.video.src = `/preview/${this.info.id}/${this.part}?${version}`;
    } else {
      this.video.src = `/media/${this.info.id}?${version}`;
    }
  }

  begin() {
    if (!this.isPreview && !this.video.videoWidth) {
      this.fail(); // There is sound, but the pictures cannot be decoded.
      return;
    }
    const at = this.wanted - this.offset;
    if (Math.abs(this.video.currentTime - at) > 0.01) this.video.currentTime = Math.max(0, at);
  }

  tick() {
    if (this.isGone || !this.video.readyState) return;
    if (!this.video.seeking) this.wanted = this.time;
    if (this.span && !this.video.paused && this.time >= this.span.end - 0.03) this.seek(this.span.start);
    this.tell("time");
  }

  onward() {
    if (this.isGone) return;
    if (this.span) {
      const isMore = this.isPreview && this.time + 0.2 < this.span.end && this.part >= 0 && this.offset + settings.previewLength < this.info.duration;
      this.seek(isMore ? this.offset + settings.previewLength : this.span.start);
      this.play();
    } else if (this.isPreview && this.offset + settings.previewLength < this.info.duration) {
      this.seek(this.offset + settings.previewLength);
      this.play();
    } else {
      this.tell("paused");
    }
  }

  fail() {
    if (this.isGone || !this.video.getAttribute("src")) return;
    if (this.isPreview) {
      this.tell("failed");
      return;
    }
    failed.add(this.info.id);
    this.isPreview = true;
    const plays = this.wantsToPlay;
    this.load();
    if (plays) this.play();
  }

  seek(seconds) {
    this.wanted = Math.min(Math.max(0, seconds), Math.max(0, this.info.duration - 0.05));
    const isHere = this.wanted >= this.offset && this.wanted < this.offset + settings.previewLength;
    if (this.isPreview && !isHere) {
      const plays = this.wantsToPlay;
      this.load();
      if (plays) this.play();
    } else if (this.video.readyState) {
      this.video.currentTime = this.wanted - this.offset;
    }
    this.tell("time");
  }

  play() {
    this.wantsToPlay = true;
    // It is interrupted when another source is loaded, or refused before the first click.
    this.video.play().catch(() => this.tell("paused"));
  }

  pause() {
    this.wantsToPlay = false;
    this.video.pause();
  }

  toggle() {
    if (this.video.paused) this.play();
    else this.pause();
  }

  // Ends all loading: a browser opens few connections to one server.
  close() {
    this.isGone = true;
    for (const [name, listener] of Object.entries(this.listeners)) this.video.removeEventListener(name, listener);
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
