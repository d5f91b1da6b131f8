"use strict";

const base = location.pathname.replace(/\/?$/, "/");
const $ = (id) => document.getElementById(id);

let snapshot = null;
let receivedAt = 0;
let fresh = false;
let query = "";

// ---- Elements. Data is set as text, and only where it has changed, so that a selection stays.

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent === text) return;
  if (node.firstChild) node.firstChild.data = text;
  else node.textContent = text;
}

function setAttr(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// ---- Numbers, with units

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const count = (n) => (n < 1e7 ? whole : compact).format(n);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const words = (name) => name.replace(/_/g, " ");
const capital = (name) => name.charAt(0).toUpperCase() + words(name).slice(1);

/** In seconds, also below one, for a time that counts up in sight. */
function ticking(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const s = Math.floor(seconds + 0.05);
  const [min, h, d] = [60, 3600, 86400].map((unit) => Math.floor(s / unit));
  const two = (big, unit, small, smallUnit) => `${big} ${unit}${small ? ` ${small} ${smallUnit}` : ""}`;
  if (d) return two(d, "d", h % 24, "h");
  return h ? two(h, "h", min % 60, "min") : two(min, "min", s % 60, "s");
}

function time(seconds) {
  if (seconds >= 0.9995 || seconds <= 0) return ticking(seconds);
  if (seconds < 0.001) return seconds < 1e-6 ? "< 1 µs" : `${Math.floor(seconds * 1e6)} µs`;
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

/** In one unit, rounded down. */
function coarse(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([least]) => seconds >= least) || [1, "s"];
  return `${Math.floor(Math.max(0, seconds) / size)} ${unit}`;
}

function rate(n) {
  if (n === 0) return "0";
  return n < 100 ? n.toFixed(n < 0.1 ? 2 : 1) : count(Math.round(n));
}

// ---- Charts: an SVG whose title tells what it shows

const WIDTH = 180;
const HEIGHT = 22;

function chart(className) {
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const title = svg("title", {});
  const ground = svg("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` });
  const path = svg("path", { class: className });
  const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
  const picture = svg("svg", { role: "img", viewBox, preserveAspectRatio: "none" }, title, ground, path);
  return {
    picture,
    set(d, text) {
      setAttr(path, "d", d);
      setText(title, text);
    },
  };
}

const short = (n) => Math.round(n * 10) / 10;

/** `part`: how much of its place a bar takes. */
function bars(values, part) {
  const top = Math.max(1, ...values);
  const step = WIDTH / values.length;
  return values.map((value, i) => {
    const height = short(Math.max(1, (value / top) * HEIGHT));
    return value ? `M${short(i * step)} ${HEIGHT}v${-height}h${short(step * part)}v${height}z` : "";
  }).join("");
}

/** A line with a gap where a value is null. A lone value is a dot. */
function trace(values) {
  const top = Math.max(...values) || 1;
  const step = WIDTH / values.length;
  return values.map((value, i) => {
    if (value === null) return "";
    const pen = (values[i - 1] ?? null) === null ? "M" : "L";
    const dot = pen === "M" && (values[i + 1] ?? null) === null ? "h.01" : "";
    return `${pen}${short((i + 0.5) * step)} ${short(HEIGHT - 2 - (value / top) * (HEIGHT - 3))}${dot}`;
  }).join("");
}

function tellEnded(values, bucket) {
  const span = time(values.length * bucket);
  if (!sum(values)) return `None ended in the last ${span}`;
  return `${count(sum(values))} ended in the last ${span}, at most ${count(Math.max(...values))} in ${time(bucket)}`;
}

function tellMean(what, values, bucket) {
  const known = values.filter((value) => value !== null);
  const of = `${what} in the last ${time(values.length * bucket)}`;
  if (!known.length) return `No ${of}`;
  return `Mean ${of}: ${time(Math.min(...known))} to ${time(Math.max(...known))}, last ${time(known.pop())}`;
}

// ---- Tables whose rows keep their elements, by key

const NUMERIC = ["Waited", "Running", "Completed", "When"];

class Table {
  constructor(id, { title, caption, columns, first, create, key, note, empty, steady }) {
    Object.assign(this, { id, first, create, key, note, empty, steady, entries: new Map(), all: false });
    const heads = columns.map((name) => {
      const head = el("th", NUMERIC.includes(name) ? "num" : "", name);
      head.scope = "col";
      return head;
    });
    this.said = el("span", "muted");
    this.body = el("tbody");
    this.table = el("table", "", el("caption", "sr", caption), el("thead", "", el("tr", "", ...heads)), this.body);
    this.line = el("p", "empty");
    this.more = el("button", "more");
    this.more.type = "button";
    this.more.addEventListener("click", () => {
      this.all = !this.all;
      this.show();
      this.more.scrollIntoView({ block: "nearest" });
    });
    const heading = el("h2", "", title);
    heading.id = `${id}-title`;
    $(id).setAttribute("aria-labelledby", heading.id);
    $(id).append(el("div", "head", heading, this.said), this.table, this.line, this.more);
    // As cards, these would lose what they are.
    const roles = { table: "table", "thead, tbody": "rowgroup", tr: "row", th: "columnheader" };
    for (const [tags, role] of Object.entries(roles)) {
      for (const node of $(id).querySelectorAll(tags)) node.setAttribute("role", role);
    }
  }

  update(items) {
    const wanted = new Map(items.map((item) => [this.key(item), item]));
    for (const [key, { row }] of this.entries) {
      if (wanted.has(key)) continue;
      // The focus stays about where it was, but not on a button that cancels another task.
      if (row.contains(document.activeElement)) {
        (row.nextElementSibling || row.previousElementSibling || $(this.id)).focus({ preventScroll: true });
      }
      row.remove();
      this.entries.delete(key);
    }
    // Rows that are pointed at or used do not change places beneath the reader.
    const still = this.steady && this.body.matches(":hover, :focus-within");
    let next = this.body.firstElementChild;
    for (const [key, item] of wanted) {
      let entry = this.entries.get(key);
      if (!entry) {
        entry = this.create(item);
        this.entries.set(key, entry);
        this.body.insertBefore(entry.row, still ? null : next);
      } else if (still || entry.row === next) {
        next = next && next.nextElementSibling;
      } else {
        this.body.insertBefore(entry.row, next);
      }
      entry.item = item;
      entry.row.entry = entry;
      entry.update(item);
    }
    this.show();
  }

  /** Applies the filter, and shows the first rows or all. */
  show() {
    let found = 0;
    for (const row of this.body.children) {
      const { name, id, route, location, request } = row.entry.item;
      const texts = [name, id && `#${id}`, route, location];
      if (request) texts.push(`${request.method} ${request.path}`, request.route, request.id);
      const match = !query || texts.some((text) => text && text.toLowerCase().includes(query));
      if (match) found += 1;
      row.hidden = !match || !(this.all || found <= this.first || row.contains(document.activeElement));
    }
    const held = this.entries.size;
    const matched = query && held ? `${count(found)} of ${count(held)} match the filter` : "";
    setText(this.said, [matched, this.note(held)].filter(Boolean).join(" · "));
    this.table.hidden = !found;
    this.line.hidden = !!found;
    setText(this.line, held ? "Nothing here matches the filter." : this.empty());
    this.more.hidden = found <= this.first;
    setAttr(this.more, "aria-expanded", this.all);
    setText(this.more, this.all ? `Show the first ${this.first} only` : `Show all ${count(found)}`);
    this.tick();
  }

  tick() {
    for (const { hidden, entry } of this.body.children) {
      if (!hidden && entry.tick) entry.tick(passed());
    }
  }
}

// ---- Parts of rows

function startRow() {
  const name = el("bdi", "clamp");
  const sub = el("bdi", "sub");
  const head = el("th", "", name, sub);
  const row = el("tr", "", head);
  head.scope = "row";
  head.setAttribute("role", "rowheader");
  row.setAttribute("role", "row");
  row.tabIndex = -1;
  return {
    row,
    setName(text, below) {
      setText(name, text);
      setAttr(name, "title", text.length > 60 && text);
      setText(sub, below);
    },
    cell(label, className, ...children) {
      const td = el("td", className, ...children);
      td.setAttribute("role", "cell");
      td.dataset.label = label;
      row.append(td);
      return td;
    },
  };
}

function requestCell(cell) {
  const [verb, path, sub] = [el("span", "muted"), el("bdi"), el("bdi", "sub")];
  const line = el("span", "path clamp", verb, " ", path);
  const td = cell("Request", "full", line, sub);
  return (request) => {
    td.classList.toggle("void", !request);
    const { method, path: text, route, id } = request || { method: "–", path: "" };
    setText(verb, method);
    setText(path, text);
    setAttr(line, "title", text.length > 60 && text);
    setText(sub, [route !== text && route, id && `id ${id}`].filter(Boolean).join(" · "));
  };
}

const TONES = { failed: "red", panicked: "red", timed_out: "red", aborted: "amber", rejected: "amber" };

// ---- Cancelling a task

let sayTimer = 0;
function say(...parts) {
  clearTimeout(sayTimer);
  $("status").replaceChildren(...parts);
  sayTimer = setTimeout(() => $("status").replaceChildren(), 8000);
}

const OUTCOMES = {
  204: "cancelled.",
  403: "not cancelled: that is not allowed here.",
  404: "has already ended.",
  409: "cannot be stopped: it blocks a thread, and runs.",
};

async function cancel({ id, name }) {
  const answer = await fetch(`${base}cancel`, { method: "POST", body: `id=${id}` }).catch(() => null);
  const failed = answer ? `the server answered ${answer.status}.` : "the server did not answer.";
  const outcome = OUTCOMES[answer?.status] || `perhaps not cancelled: ${failed}`;
  say(`Task ${id}, `, el("bdi", "", name.length > 80 ? `${name.slice(0, 80)}…` : name), `: ${outcome}`);
  return answer && (answer.ok || answer.status === 404);
}

function cancelButton(task) {
  const button = el("button");
  button.type = "button";
  let state = "";
  let timer = 0;
  const set = (to, text, back) => {
    clearTimeout(timer);
    state = to;
    button.className = to;
    setText(button, text);
    setAttr(button, "aria-label", `${text.replace(/\W$/, "")} task ${task.id}${to === "armed" ? "?" : ""}`);
    setAttr(button, "aria-disabled", to === "sent");
    if (back) timer = setTimeout(idle, back);
  };
  const idle = () => set("", "Cancel");
  const disarm = () => state === "armed" && idle();
  idle();
  button.addEventListener("blur", disarm);
  button.addEventListener("keydown", (event) => {
    if (event.key === "Escape") disarm();
    if (event.repeat && event.key !== "Tab") event.preventDefault();
  });
  button.addEventListener("click", async (event) => {
    // A double click does not confirm, nor does a key that is held down.
    if (!state) set("armed", "Really cancel?", 3000);
    else if (state === "armed" && event.detail < 2) {
      set("sent", "Cancelling…");
      if (await cancel(task)) timer = setTimeout(idle, 5000);
      else idle();
    }
  });
  return button;
}

// ---- The three tables

function taskRow(first) {
  const { row, setName, cell } = startRow();
  const setRequest = requestCell(cell);
  const [state, kind] = [el("span", "dot"), el("span", "sub")];
  cell("State", "", state, kind);
  const waited = cell("Waited", "num");
  const running = cell("Running", "num");
  const [fill, percent] = [el("span", "fill"), el("span")];
  const track = el("span", "track", fill);
  setAttr(track, "role", "progressbar");
  setAttr(track, "aria-label", `Progress of task ${first.id}`);
  const progress = el("div", "progress", track, percent);
  const progressCell = cell("Progress", "full", progress);
  const button = cancelButton(first);
  const act = cell("", "act full");

  return {
    row,
    update(task) {
      setName(task.name, `#${task.id} · ${task.location}`);
      setRequest(task.request);
      setAttr(state, "data-state", task.state);
      setText(state, capital(task.state));
      const stuck = task.kind === "blocking" && task.running_seconds !== null;
      const blocking = stuck && snapshot.allow_cancel ? "blocking, can’t be stopped" : "blocking";
      setText(kind, task.kind === "blocking" ? blocking : "");
      const part = Math.min(1, Math.max(0, task.progress || 0));
      progress.hidden = task.progress === null;
      progressCell.classList.toggle("void", progress.hidden);
      fill.style.transform = `scaleX(${part})`;
      setAttr(track, "aria-valuenow", Math.floor(part * 100));
      setText(percent, `${Math.floor(part * 100)} %`);
      if (snapshot.allow_cancel && !stuck) {
        if (!button.isConnected) act.append(button);
      } else {
        button.remove();
      }
    },
    tick(more) {
      const { age_seconds: age, running_seconds: run } = this.item;
      setText(waited, ticking(run === null ? age + more : age - run));
      waited.classList.toggle("muted", run !== null);
      setText(running, run === null ? "–" : ticking(run + more));
      running.classList.toggle("muted", run === null);
    },
  };
}

function groupRow() {
  const { row, setName, cell } = startRow();
  const completed = cell("Completed", "num");
  const others = cell("Other ends", "rest");
  const chartCell = (label, className) => {
    const value = el("span");
    const { picture, set } = chart(className);
    cell(label, "", el("div", "chart", picture, value));
    return (text, d, title) => {
      setText(value, text);
      value.classList.toggle("muted", text === "–" || text === "0 /s");
      set(d, title);
    };
  };
  const setEnded = chartCell("Rate", "bars");
  const setWaiting = chartCell("Mean wait", "trace");
  const setRunning = chartCell("Mean run", "trace");
  const tags = {};
  const last = (values) => {
    const value = values.findLast((mean) => mean !== null);
    return value === undefined ? "–" : time(value);
  };

  return {
    row,
    update({ name, route, ends, per_second, bucket_seconds: bucket, ended, waiting_seconds, running_seconds }) {
      setName(name, route || "");
      setText(completed, count(ends.completed || 0));
      completed.classList.toggle("muted", !ends.completed);
      for (const [end, n] of Object.entries(ends)) {
        if (end === "completed") continue;
        if (!tags[end]) {
          tags[end] = el("span", "tag");
          setAttr(tags[end], "data-tone", TONES[end] || "");
          others.append(tags[end], " ");
        }
        setText(tags[end], `${count(n)} ${words(end)}`);
      }
      others.classList.toggle("void", !others.firstChild);
      setEnded(`${rate(per_second)} /s`, bars(ended, 1), tellEnded(ended, bucket));
      setWaiting(last(waiting_seconds), trace(waiting_seconds), tellMean("wait", waiting_seconds, bucket));
      setRunning(last(running_seconds), trace(running_seconds), tellMean("run", running_seconds, bucket));
    },
  };
}

function failureRow(first) {
  const { row, setName, cell } = startRow();
  const setRequest = requestCell(cell);
  const tag = el("span", "tag");
  cell("End", "", tag);
  const cause = el("bdi", "cause");
  const toggle = el("button", "plain");
  toggle.type = "button";
  const causeCell = cell("Cause", "full", cause, toggle);
  const when = cell("When", "num");
  let open = false;
  const show = () => {
    cause.classList.toggle("clamp", !open);
    setText(toggle, open ? "Show less" : "Show all");
    setAttr(toggle, "aria-label", `${toggle.textContent} of the cause, task ${first.id}`);
    setAttr(toggle, "aria-expanded", open ? "true" : "false");
  };
  show();
  toggle.addEventListener("click", () => {
    open = !open;
    show();
  });

  return {
    row,
    update(failure) {
      setName(failure.name, `#${failure.id} · ${failure.location}`);
      setRequest(failure.request);
      setText(tag, capital(failure.end));
      setAttr(tag, "data-tone", TONES[failure.end] || "");
      const error = failure.error || "";
      setText(cause, error || "–");
      causeCell.classList.toggle("void", !error);
      toggle.hidden = error.length <= 80 && error.split("\n").length <= 2;
    },
    tick(more) {
      setText(when, `${coarse(this.item.seconds_ago + more)} ago`);
    },
  };
}

const tables = {
  tasks: new Table("tasks", {
    title: "Tasks now",
    caption: "Tasks that wait or run, oldest first",
    columns: ["Task", "Request", "State", "Waited", "Running", "Progress", "Cancel"],
    first: 15,
    create: taskRow,
    key: (task) => task.id,
    note: (held) => snapshot.tasks_total > held && `the oldest ${count(held)} of ${count(snapshot.tasks_total)}`,
    empty: () => (snapshot.state === "shut_down" ? "All tasks have ended." : "Nothing waits or runs right now."),
  }),
  groups: new Table("groups", {
    title: "By task and route",
    caption: "How tasks ended, by name and route, busiest first",
    columns: ["Task and route", "Completed", "Other ends", "Rate", "Mean wait", "Mean run"],
    first: 12,
    steady: true,
    create: groupRow,
    key: ({ name, route }) => JSON.stringify([name, route]),
    note: (held) => held >= 100 && "the busiest 100",
    empty: () => "No task has ended yet. The first one will show up here.",
  }),
  failures: new Table("failures", {
    title: "Recent failures",
    caption: "Tasks that failed or were not run to their end, newest first",
    columns: ["Task", "Request", "End", "Cause", "When"],
    first: 10,
    create: failureRow,
    key: ({ id, end }) => `${id} ${end}`,
    note: (held) => held >= 100 && "the newest 100",
    empty: () => "No failures. Long may it last.",
  }),
};

// ---- Header and cards

function tiles(parent, list) {
  const set = list.map(([key, tone, title]) => {
    const value = el("dd");
    const tile = el("div", "tile", el("dt", "", capital(key)), value);
    if (title) tile.title = title;
    parent.append(tile);
    return (n) => {
      setText(value, count(n));
      setAttr(value, "title", n >= 1e7 && whole.format(n));
      setAttr(tile, "data-tone", (n && tone) || "");
      tile.classList.toggle("zero", !n);
      tile.classList.toggle("alert", n > 0 && tone === "amber" && !!title);
    };
  });
  return (numbers) => list.forEach(([key], i) => set[i](numbers[key] || 0));
}

const setNow = tiles($("now"), [
  ["running"], ["pending"], ["awaiting_response"],
  ["overdue", "amber", "Timed out, but the thread still runs"],
]);
const setTotals = tiles($("totals"), [
  ["added"], ["completed"], ["failed", "red"], ["panicked", "red"], ["timed_out", "red"], ["aborted", "amber"],
  ["rejected", "amber"], ["skipped"], ["spilled", "", "Handed to the store, for a worker to run"],
  ["slow_polls", "amber", "Polls that held up a thread of the runtime"],
]);

const rateChart = chart("bars");
$("rate-chart").append(rateChart.picture);

function setRate(groups) {
  const { ended, bucket_seconds: bucket } = groups[0] || { ended: Array(60).fill(0), bucket_seconds: 5 };
  const all = ended.map((_, i) => sum(groups.map((group) => group.ended[i])));
  setText($("rate"), rate(sum(groups.map((group) => group.per_second))));
  $("rate").classList.toggle("zero", $("rate").textContent === "0");
  setText($("rate-title"), `Ended in the last ${time(all.length * bucket)}`);
  rateChart.set(bars(all, 0.7), tellEnded(all, bucket));
}

const meters = new Map();
function setLimits(limits) {
  $("no-limits").hidden = limits.length > 0;
  for (const { name, used, limit } of limits) {
    let meter = meters.get(name);
    if (!meter) {
      const [value, of, fill] = [el("b"), el("span", "muted"), el("span", "fill")];
      const track = el("div", "track", fill);
      setAttr(track, "role", "meter");
      setAttr(track, "aria-label", words(name));
      meter = { value, of, fill, track, node: el("div", "", el("p", "", capital(name), value, of), track) };
      meters.set(name, meter);
      $("limits").append(meter.node);
    }
    const part = limit > 0 ? Math.min(1, used / limit) : 1;
    setText(meter.value, count(used));
    setText(meter.of, `/ ${count(limit)}`);
    meter.fill.style.transform = `scaleX(${part})`;
    setAttr(meter.node, "data-level", part >= 1 ? "full" : part >= 0.8 ? "high" : "fine");
    setAttr(meter.track, "aria-valuemax", limit);
    setAttr(meter.track, "aria-valuenow", Math.min(used, limit));
    setAttr(meter.track, "aria-valuetext", `${used} of ${limit}`);
  }
}

let deadlineWas = 0;
let wholeStep = 0;

function setState({ state, deadline_seconds: deadline }) {
  const text = capital(state);
  if ($("state").dataset.state !== state) {
    $("state").dataset.state = state;
    $("state").hidden = false;
    setText($("state"), text);
    setText($("announce"), `The runner is ${text.toLowerCase()}.`);
    document.title = state === "ready" ? "Background tasks" : `${text} – Background tasks`;
  }
  // A deadline later than the last is that of the next step.
  if (deadline > deadlineWas) wholeStep = deadline;
  deadlineWas = deadline || 0;
  $("shutdown").hidden = deadline === null && !state.startsWith("shut");
  setAttr($("shutdown"), "data-over", state === "shut_down");
  $("shutdown-fill").parentElement.hidden = deadline === null;
}

const passed = () => (fresh ? (performance.now() - receivedAt) / 1000 : 0);

function tickHeader() {
  const { state, deadline_seconds: deadline, uptime_seconds: uptime } = snapshot;
  setText($("uptime"), `up ${uptime < 60 ? coarse(uptime + passed()) : ticking(uptime + passed())}`);
  const left = Math.max(0, deadline - passed());
  if (deadline !== null) $("shutdown-fill").style.transform = `scaleX(${left / wholeStep})`;
  const over = state === "shut_down" ? "New tasks are rejected." : "The tasks that are left may end.";
  setText($("shutdown-text"), deadline === null ? over : `This step ends in ${ticking(left)}`);
}

// Times tick between two snapshots.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let tickedAt = 0;
setInterval(() => {
  if (!fresh || document.hidden || (calm.matches && performance.now() - tickedAt < 950)) return;
  tickedAt = performance.now();
  tickHeader();
  tables.tasks.tick();
  tables.failures.tick();
}, 100);

// ---- The data

let source = null;
let openedAt = 0;
let polling = false;

function setLink(link, text) {
  const was = $("link").dataset.link;
  setText($("link"), text);
  $("link").dataset.link = link;
  if (link !== was && link === "lost") setText($("announce"), "The connection is lost. The data is old.");
  if (link !== was && was === "lost") setText($("announce"), "The connection is back.");
}

function setFresh(value) {
  fresh = value;
  setAttr($("main"), "data-fresh", value ? "yes" : "no");
}

function receive(text) {
  snapshot = JSON.parse(text);
  receivedAt = performance.now();
  setFresh(true);
  setLink("live", "Live");
  document.body.classList.toggle("no-cancel", !snapshot.allow_cancel);
  setState(snapshot);
  setNow({ ...snapshot.totals, overdue: snapshot.overdue });
  setTotals({ ...snapshot.totals, slow_polls: snapshot.slow_polls });
  setLimits(snapshot.limits);
  setRate(snapshot.groups);
  for (const [name, table] of Object.entries(tables)) {
    table.update(snapshot[name]);
    setText($(`${name}-total`), count(name === "tasks" ? snapshot.tasks_total : snapshot[name].length));
  }
  tickHeader();
}

function lost() {
  setFresh(false);
  const old = snapshot ? performance.now() - receivedAt : 0;
  setLink("lost", old < 2000 ? "Reconnecting…" : `Reconnecting… data ${coarse(old / 1000)} old`);
}

function connect() {
  openedAt = performance.now();
  source = new EventSource(`${base}events`);
  source.onmessage = (event) => {
    polling = false;
    receive(event.data);
  };
  source.onerror = lost;
}

// Something between may hold the stream back. The page asks by itself then.
async function poll() {
  try {
    const answer = await fetch(`${base}snapshot.json`, { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw answer.status;
    const text = await answer.text();
    polling = true;
    receive(text);
  } catch {
    polling = false;
    lost();
  }
}

setInterval(() => {
  if (!source) return;
  const idle = performance.now() - Math.max(receivedAt, openedAt);
  if (source.readyState === EventSource.OPEN && idle > (polling ? 900 : 3500)) poll();
  else if (!fresh && idle > 1000) lost();
  // The browser gives up after an answer that is no stream.
  if (source.readyState === EventSource.CLOSED && performance.now() - openedAt > 3000) connect();
}, 1000);

// A page that nobody sees holds no connection.
document.addEventListener("visibilitychange", () => {
  if (source) source.close();
  source = null;
  setFresh(false);
  setLink("connecting", document.hidden ? "Paused" : "Connecting…");
  if (!document.hidden) connect();
});

// ---- The filter

function filter() {
  query = $("filter").value.trim().toLowerCase();
  if (snapshot) Object.values(tables).forEach((table) => table.show());
}
$("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === $("filter")) {
    $("filter").value = "";
    filter();
  }
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target === $("filter")) return;
  event.preventDefault();
  $("filter").select();
});

$("json").href = `${base}snapshot.json`;
if (!document.hidden) connect();
