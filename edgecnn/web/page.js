
"use strict";
const byId = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const POLL_MS = 1000, PATIENCE_MS = 8000, LATE_S = 5, SECONDS = 120;
let chosen = 0, number = 0, paused = false, state = null;

/* One request after the other: a browser then needs one connection, and a slow one misses pictures. */
async function follow() {
  let due = 0;
  for (;;) {
    try {
      if (performance.now() >= due) {
        due = performance.now() + POLL_MS;
        showState(await (await ask("state.json", { source: chosen })).json());
      }
      if (paused || document.hidden) await sleep(due - performance.now());
      else await followPicture();
    } catch (error) {
      showGone(error);
      await sleep(POLL_MS);
      due = 0;
    }
  }
}

async function ask(path, query) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

async function followPicture() {
  const source = chosen;
  const answer = await ask("picture.jpg", { source, after: number });
  if (answer.status === 204) return;
  const blob = await answer.blob();
  if (paused || source !== chosen) return;
  number = answer.headers.get("X-Edgecnn-Number");
  await showPicture(blob);
}

/* Decoded before it takes the other's place: there is no moment without a picture. */
async function showPicture(blob) {
  const before = byId("picture"), picture = before.cloneNode();
  picture.src = URL.createObjectURL(blob);
  if (!await picture.decode().then(() => true, () => false)) return URL.revokeObjectURL(picture.src);
  picture.hidden = byId("pause").disabled = byId("snapshot").disabled = false;
  before.replaceWith(picture);
  URL.revokeObjectURL(before.src);
}

function showState(now) {
  state = now;
  const source = now.source;
  byId("about").textContent = now.about;
  byId("name").textContent = source.name;
  document.title = `${source.name} · edgecnn`;
  showStatus(source);
  showSources(now.sources);
  showHealth(source);
  showCharts(source);
  if (!paused) showFound(source);
}

function showStatus(source) {
  const late = source.live && source.age_s > LATE_S;
  if (source.state === "lost") {
    const since = age(source.lost_s);
    status("lost", `lost for ${since}`, `Lost ${since} ago: ${source.events[0].reason}. It is opened again until it is back.`);
  } else if (source.state === "waiting") status("waiting", "waiting", "Waiting for the first frame.");
  else if (late) status("late", `no frame for ${age(source.age_s)}`);
  else status("up", "up");
}

function showGone(error) {
  const answered = /^\d{3} /.test(error.message);
  status("gone", answered ? "refused" : "no answer", answered ? error.message : "edgecnn does not answer: it has ended, or the network is away. Trying again.");
}

function status(kind, text, banner = "") {
  byId("status").className = kind;
  byId("status").textContent = text;
  const told = banner || (paused ? "Paused." : "");
  byId("banner").textContent = told;
  byId("banner").hidden = !told;
  document.querySelector(".stage").classList.toggle("stale", kind === "lost" || kind === "gone");
}

function showSources(sources) {
  const list = byId("sources");
  list.hidden = sources.length < 2;
  while (list.children.length > sources.length) list.lastChild.remove();
  sources.forEach((source, index) => {
    const button = list.children[index] || list.appendChild(element("button"));
    button.type = "button";
    button.textContent = source.name;
    button.className = source.state;
    button.setAttribute("aria-pressed", index === chosen);
    button.onclick = () => choose(index);
  });
}

function choose(index) {
  if (index === chosen) return;
  chosen = index;
  number = 0;
  byId("picture").hidden = byId("snapshot").disabled = true;
  pause(false);
}

function showHealth(source) {
  const [height, width] = source.size_hw || [];
  byId("frame").textContent = source.index === null ? "" : `frame ${source.index} · ${width}×${height}`;
  const rows = { Frames: source.announced ? `${source.frames} of ${source.announced}` : source.frames, "Last frame": source.frames ? `${age(source.age_s)} ago` : "none yet" };
  if (source.live) Object.assign(rows, { Dropped: source.dropped, Reconnects: source.reconnects });
  byId("health").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  byId("events").replaceChildren(...source.events.map((event) => {
    const item = element("li", `${new Date(event.time * 1000).toLocaleTimeString()} `);
    item.className = event.state;
    item.append(element("b", event.state), ` ${event.reason}`);
    return item;
  }));
}

function showFound(source) {
  byId("found").hidden = !source.classes.length;
  byId("classes").replaceChildren(...source.classes.map((each) => {
    const row = element("tr"), name = element("th"), mark = element("i");
    row.className = each.now ? "" : "absent";
    name.scope = "row";
    mark.style.background = each.color;
    name.append(mark, each.label);
    row.append(name, ...[each.now, each.total].map((count) => Object.assign(element("td", count), { className: "n" })));
    return row;
  }));
}

const charts = [
  { id: "fps", unit: " fps", lines: ["frames"], area: true, now: (source) => [source.fps] },
  { id: "latency", unit: " ms", lines: ["p50_ms", "p95_ms"], now: (source) => [source.p50_ms, source.p95_ms] },
];

function showCharts(source) {
  for (const chart of charts) showChart(chart, source);
}

function showChart(chart, source) {
  const { seconds } = source, rows = chart.lines.map((name) => seconds[name]);
  const svg = byId(`${chart.id}-chart`), card = svg.closest(".chart"), top = ceiling(Math.max(0, ...rows.flat()));
  const first = SECONDS - seconds.lost.length, index = chart.at - first;
  svg.replaceChildren(
    path("grid", "M0 0H120M0 50H120M0 100H120"),
    path("lost", seconds.lost.map((lost, second) => (lost ? `M${first + second} 0h1v100h-1z` : "")).join("")),
    ...(chart.area && rows[0].length ? [path("area", `${line(rows[0], first, top)}V100H${first + 0.5}`)] : []),
    ...rows.map((values, row) => path(`line ${chart.lines[row]}`, line(values, first, top))).reverse(),
    ...(index >= 0 ? [path("cross", `M${chart.at + 0.5} 0V100`)] : []),
  );
  card.querySelector(".top").textContent = `${top}${chart.unit}`;
  card.querySelector(".at").textContent = index >= 0 ? `${age(SECONDS - chart.at)} ago: ${seconds.lost[index] ? "lost" : figures(rows.map((values) => values[index]), chart.unit)}` : "";
  byId(chart.id).textContent = figures(chart.now(source), chart.unit);
}

function path(name, d) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "path");
  made.setAttribute("class", name);
  made.setAttribute("d", d);
  return made;
}

/* A point in the middle of each second; what was not measured is a gap. */
function line(values, first, top) {
  let pen = "M";
  return values.map((value, second) => {
    const point = value === null ? "" : `${pen}${first + second + 0.5} ${(100 - (100 * value) / top).toFixed(2)}`;
    pen = value === null ? "M" : "L";
    return point;
  }).join("");
}

function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function figures(values, unit) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.map((value) => (value < 10 ? value.toFixed(1) : value.toFixed(0))).join(" / ") + unit : "–";
}

function age(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return `${(seconds / 3600).toFixed(0)} h`;
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function pause(on) {
  paused = on;
  byId("pause").setAttribute("aria-pressed", on);
  byId("pause").textContent = on ? "Resume" : "Pause";
  if (state) showStatus(state.source);
}

function save() {
  const link = element("a"), time = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  link.href = byId("picture").src;
  link.download = `edgecnn-${time}.jpg`;
  link.click();
}

for (const chart of charts) {
  const svg = byId(`${chart.id}-chart`);
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    chart.at = Math.min(SECONDS - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * SECONDS)));
    if (state) showChart(chart, state.source);
  };
  svg.onpointerleave = () => {
    chart.at = undefined;
    if (state) showChart(chart, state.source);
  };
}
byId("pause").onclick = () => pause(!paused);
byId("snapshot").onclick = save;
/* the cookie has the token now: it must not stay in the history */
history.replaceState(null, "", location.pathname);
follow();
