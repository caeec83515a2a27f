
"use strict";
const byId = (id) => document.getElementById(id);
const SENT_PX_MAX = 640, JPEG_QUALITY = 0.85, WAIT_MS = 500, WAIT_MAX_MS = 8000, PATIENCE_MS = 10000, FIGURES_MS = 3000;
const video = byId("video"), canvas = document.createElement("canvas"), context = canvas.getContext("2d", { alpha: false });
const WAITING = "waiting", trouble = {
  camera: { status: WAITING, text: "Asking for the camera: allow it, if the browser wants to know." },
  server: { status: WAITING, text: "Waiting for the program behind this page." },
};
let answers = [];

/* The camera: opened again when one is plugged in, when somebody says so, and, unless it was refused, now and then. */
async function keepCamera() {
  let wake = () => {};
  navigator.mediaDevices.ondevicechange = byId("again").onclick = () => wake();
  for (let wait = WAIT_MS; ; wait = longer(wait)) {
    let refused = false;
    try {
      const track = await openCamera();
      wait = WAIT_MS;
      await new Promise((done) => { track.onended = done; });
      tell("camera", "no camera", "The camera is gone. Plug it in again; the page notices.");
    } catch (error) {
      refused = error.name === "NotAllowedError";
      tell("camera", refused ? "camera refused" : "no camera", cure(error));
    }
    video.srcObject = null;
    clear();
    byId("again").hidden = false;
    await new Promise((done) => {
      wake = done;
      if (!refused) setTimeout(done, wait);
    });
    byId("again").hidden = true;
  }
}

async function openCamera() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" } });
  const [track] = stream.getVideoTracks();
  track.onmute = () => {
    clear();
    tell("camera", "no pictures", "The camera gives no pictures: it is covered, switched off or used elsewhere.");
  };
  track.onunmute = () => tell("camera");
  byId("name").textContent = track.label || "camera";
  video.srcObject = stream;
  tell("camera");
  return track;
}

function cure(error) {
  switch (error.name) {
    case "NotAllowedError": return "The camera is refused. Allow it for this page, with the sign beside the address, then try again.";
    case "NotFoundError": return "There is no camera. Plug one in; the page notices.";
    case "NotReadableError": return "The camera cannot be read: another program has it, or it is broken. Close that program; it is tried again.";
    default: return `The camera cannot be opened (${error.message || error.name}). It is tried again.`;
  }
}

const longer = (wait) => Math.min(2 * wait, WAIT_MAX_MS);

/* The program: a picture at a time. Those that the camera gives until its answer is there are passed over. */
const server = {
  wait: WAIT_MS,
  ready: false,

  connect() {
    this.socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/frames`);
    this.socket.onmessage = ({ data }) => this.answered(JSON.parse(data));
    this.socket.onclose = ({ reason }) => this.lost(reason || "it has ended, or the network is away");
    this.expect();
  },

  expect() {
    clearTimeout(this.late);
    this.late = setTimeout(() => this.lost(`nothing for ${PATIENCE_MS / 1000} s`), PATIENCE_MS);
  },

  async offer() {
    if (!this.ready || !video.videoWidth) return;
    this.ready = false;
    this.taken = performance.now();
    this.expect();
    const { socket } = this, scale = Math.min(1, SENT_PX_MAX / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const jpeg = await new Promise((done) => canvas.toBlob(done, "image/jpeg", JPEG_QUALITY));
    if (socket.readyState === WebSocket.OPEN) socket.send(jpeg);
  },

  answered(answer) {
    clearTimeout(this.late);
    this.ready = true;
    if ("about" in answer) {
      this.wait = WAIT_MS;
      byId("about").textContent = answer.about;
    } else showAnswer(answer, performance.now() - this.taken);
    if (answer.error) tell("server", "error", `The program says: ${answer.error}`);
    else tell("server");
  },

  lost(reason) {
    clearTimeout(this.late);
    this.ready = false;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    clear();
    /* never quite the same, so that many pages do not come back in step */
    const wait = this.wait * (0.75 + Math.random() / 2);
    this.wait = longer(this.wait);
    tell("server", "no answer", `The program does not answer: ${reason}. Trying again in ${Math.ceil(wait / 1000)} s.`);
    setTimeout(() => this.connect(), wait);
  },
};

function showAnswer({ detections = [], classes = [], timing_ms: timing = {} }, latency) {
  if (trouble.camera) return;
  answers.push({ now: performance.now(), latency, model: Object.values(timing).reduce((sum, ms) => sum + ms, 0) });
  showBoxes(detections);
  showFound(classes.length ? classes.map((each) => ({ ...each, value: percent(each.score) })) : counted(detections));
}

/* Nothing is known any more. */
function clear() {
  answers = [];
  showBoxes([]);
  showFound([]);
}

function showBoxes(detections) {
  byId("boxes").replaceChildren(...detections.map(({ box: [left, top, right, bottom], score, class_id: id, label }) => {
    const made = element("div"), tag = element("span", `${label} ${percent(score)}`);
    made.className = top < 0.06 * canvas.height ? "box high" : "box";
    made.style.setProperty("--class", color(id));
    const share = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(made.style, {
      left: share(left, canvas.width), width: share(right - left, canvas.width),
      top: share(top, canvas.height), height: share(bottom - top, canvas.height),
    });
    made.append(tag);
    return made;
  }));
}

function counted(detections) {
  const counts = new Map();
  for (const { class_id, label } of detections) {
    const count = counts.get(label) || { class_id, label, value: 0 };
    count.value += 1;
    counts.set(label, count);
  }
  return [...counts.values()];
}

function showFound(rows) {
  byId("nothing").hidden = rows.length;
  byId("found").replaceChildren(...rows.flatMap(({ class_id, label, value }) => {
    const name = element("dt", label);
    name.style.setProperty("--class", color(class_id));
    return [name, element("dd", value)];
  }));
}

/* Of the answers of the last seconds: their number, and the median of what they took. */
function showFigures() {
  const since = performance.now() - FIGURES_MS;
  answers = answers.filter(({ now }) => now > since);
  byId("fps").textContent = answers.length ? (answers.length / (FIGURES_MS / 1000)).toFixed(1) : "–";
  byId("latency").textContent = answers.length ? `${median("latency").toFixed(0)} ms` : "–";
  byId("model").textContent = answers.length ? `of which the model ${median("model").toFixed(1)} ms` : "";
}

function median(name) {
  const values = answers.map((answer) => answer[name]).sort((a, b) => a - b);
  return values[values.length >> 1];
}

/* What is wrong with one of the two; nothing, if left out. The camera first: without it the program has nothing to do. */
function tell(what, status, text) {
  if (!status && !trouble[what]) return;
  trouble[what] = status ? { status, text } : null;
  const { status: now, text: told } = trouble.camera || trouble.server || { status: "looking", text: "" };
  byId("status").className = !told ? "up" : now === WAITING ? "waiting" : "down";
  byId("status").textContent = now;
  byId("told").textContent = told;
  byId("banner").hidden = !told;
  document.querySelector(".stage").classList.toggle("empty", !!trouble.camera);
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (score) => `${(100 * score).toFixed(0)} %`;
/* hues a golden angle apart, of one lightness: dark letters can be read on all of them */
const color = (id) => `oklch(0.8 0.19 ${(145 + 137.5 * id) % 360})`;

video.onresize = () => {
  byId("view").style.setProperty("--ratio", video.videoWidth / video.videoHeight);
  byId("size").textContent = `${video.videoWidth}×${video.videoHeight}`;
};
video.requestVideoFrameCallback(function each() {
  server.offer();
  video.requestVideoFrameCallback(each);
});
setInterval(showFigures, 500);
/* a cookie has the token now: it must not stay in the history */
history.replaceState(null, "", location.pathname);
server.connect();
if (navigator.mediaDevices) keepCamera();
else tell("camera", "not secure", "Browsers let pages use a camera on this machine and over https:// only. Open this one as http://localhost, through an SSH tunnel for instance.");
