// Shows the runner's snapshots, one a second. Rows keep their elements, so that focus, selection and scroll stay.
"use strict";

const base = location.origin + location.pathname.replace(/\/?$/, "/");
const $ = (id) => document.getElementById(id);

let snapshot = null;
let receivedAt = performance.now();
let lostAt = receivedAt;
let fresh = false;
let query = "";

/** Seconds since the snapshot was made. They stand still while the connection is lost. */
const passed = () => ((fresh ? performance.now() : lostAt) - receivedAt) / 1000;
const closing = () => snapshot !== null && snapshot.state.startsWith("shut");

// ---- Elements. Data is set as text, and only where it has changed.

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

// Control and format characters hide or reorder what is around them. Joiners are a part of words and emoji.
const HIDDEN = /[\p{Cc}\p{Zl}\p{Zp}]|(?![\u200c\u200d])\p{Cf}/gu;
const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const visible = (text, kept = "") => text.replace(HIDDEN, (c) =>
  kept.includes(c) ? c : ESCAPES[c] || `\\u{${c.codePointAt(0).toString(16)}}`);

// ---- Numbers, with units

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const count = (n) => (n < 1e7 ? whole : compact).format(n);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const words = (name) => name.replace(/_/g, " ");
const capital = (name) => name.charAt(0).toUpperCase() + words(name).slice(1);

/** For a time that counts up or down in sight: in tenths of a second, then in two units. */
function ticking(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const s = Math.floor(seconds + 0.05);
  const [min, h, d] = [60, 3600, 86400].map((unit) => Math.floor(s / unit));
  if (d) return `${d} d ${h % 24} h`;
  return h ? `${h} h ${min % 60} min` : `${min} min ${s % 60} s`;
}

const coarse = (seconds) => (seconds < 60 ? `${Math.floor(Math.max(0, seconds))} s` : ticking(seconds));

/** For a time that may be short. */
function time(seconds) {
  if (seconds >= 0.9995 || seconds <= 0) return ticking(seconds);
  if (seconds < 0.001) return `${Math.ceil(seconds * 1e6)} µs`;
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

function rate(n) {
  if (n === 0) return "0";
  return n < 100 ? n.toFixed(n < 0.1 ? 2 : 1) : count(Math.round(n));
}

// ---- Charts: bars in an SVG whose title tells what they show

const WIDTH = 180;
const HEIGHT = 22;

/** `part`: how much of its place a bar takes. */
function chart(className, part) {
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const title = svg("title", {});
  const ground = svg("path", { class: "ground", d: `M0 ${HEIGHT}H${WIDTH}` });
  const bars = svg("path", { class: className });
  const viewBox = `0 0 ${WIDTH} ${HEIGHT}`;
  const picture = svg("svg", { role: "img", viewBox, preserveAspectRatio: "none" }, title, ground, bars);
  const short = (n) => Math.round(n * 100) / 100;
  return {
    picture,
    set(values, text) {
      const top = Math.max(...values) || 1;
      const step = WIDTH / values.length;
      const draw = (value, i) => {
        const height = short(Math.max(1, (value / top) * HEIGHT));
        return value ? `M${short(i * step)} ${HEIGHT}v${-height}h${short(step * part)}v${height}z` : "";
      };
      setAttr(bars, "d", values.map(draw).join(""));
      setText(title, text);
    },
  };
}

function tellEnded(values, bucket) {
  const span = `${values.length * bucket} s`;
  if (!sum(values)) return `None ended in the last ${span}`;
  return `${count(sum(values))} ended in the last ${span}, at most ${count(Math.max(...values))} in ${time(bucket)}`;
}

function tellMean(what, values, bucket) {
  const known = values.filter((value) => value !== null);
  const of = `${what} in the last ${values.length * bucket} s`;
  if (!known.length) return `No ${of}`;
  return `Mean ${of}: ${time(Math.min(...known))} to ${time(Math.max(...known))}, last ${time(known.pop())}`;
}

// ---- Tables whose rows keep their elements, by key

class Table {
  /** Of `first` rows at first. `create` makes a row of its template's parts, `key` tells items apart. */
  constructor(id, { first, create, key, note, empty }) {
    Object.assign(this, { id, first, create, key, note, empty, entries: new Map(), all: false });
    this.body = $(`${id}-rows`);
    $(`${id}-more`).addEventListener("click", () => {
      this.all = !this.all;
      this.show();
      $(`${id}-more`).scrollIntoView({ block: "nearest" });
    });
  }

  add(key, item) {
    const row = $(`${this.id}-row`).content.firstElementChild.cloneNode(true);
    const parts = {};
    for (const node of row.querySelectorAll("[data-part]")) parts[node.dataset.part] = node;
    const entry = { row, ...this.create(parts, item) };
    row.entry = entry;
    this.entries.set(key, entry);
    return entry;
  }

  update(items) {
    const wanted = new Map(items.map((item) => [this.key(item), item]));
    for (const [key, { row }] of this.entries) {
      if (wanted.has(key)) continue;
      // The focus stays about where it was, but not on a button that cancels another task.
      if (row.contains(document.activeElement)) {
        let near = row.nextElementSibling;
        while (near && near.hidden) near = near.nextElementSibling;
        (near || $(this.id)).focus({ preventScroll: true });
      }
      row.remove();
      this.entries.delete(key);
    }
    // Rows in use do not change places beneath the reader.
    const { isCollapsed, anchorNode } = getSelection();
    const still = this.body.matches(":hover, :focus-within") || (!isCollapsed && this.body.contains(anchorNode));
    let next = this.body.firstElementChild;
    for (const [key, item] of wanted) {
      let entry = this.entries.get(key);
      if (entry && (still || entry.row === next)) {
        next = next && next.nextElementSibling;
      } else {
        entry ||= this.add(key, item);
        this.body.insertBefore(entry.row, next);
      }
      entry.item = item;
      entry.update(item);
    }
    this.show();
  }

  /** Applies the filter, and shows the first rows or all. */
  show() {
    let found = 0;
    for (const row of this.body.children) {
      const { name, id, route, location, error, request } = row.entry.item;
      const texts = [name, id && `#${id}`, route, location, error];
      if (request) texts.push(`${request.method} ${request.path || ""}`, request.route, request.id);
      const match = !query || texts.some((text) => text && visible(text).toLowerCase().includes(query));
      if (match) found += 1;
      row.hidden = !match || !(this.all || found <= this.first || row.contains(document.activeElement));
    }
    const part = (name) => $(`${this.id}-${name}`);
    const held = this.entries.size;
    const matched = query && held ? `${count(found)} of ${count(held)} match the filter` : "";
    setText(part("note"), [matched, this.note(held)].filter(Boolean).join(" · "));
    part("table").hidden = !found;
    part("empty").hidden = !!found;
    setText(part("empty"), held ? "Nothing here matches the filter." : this.empty());
    part("more").hidden = found <= this.first;
    setAttr(part("more"), "aria-expanded", String(this.all));
    setText(part("more"), this.all ? `Show the first ${this.first} only` : `Show all ${count(found)}`);
    this.tick();
  }

  tick() {
    for (const { hidden, entry } of this.body.children) {
      if (!hidden && entry.tick) entry.tick(passed());
    }
  }
}

// ---- Parts of rows

function setName({ name, number, sub }, text, id, below) {
  setText(name, visible(text));
  setAttr(name.parentNode, "title", text.length > 60 && visible(text));
  setText(number, id ? `#${id}` : "");
  setText(sub, visible(below || ""));
}

function setRequest(parts, request) {
  const { method, path, route, id } = request || { method: "–" };
  const text = visible(path || route || "");
  parts.request.classList.toggle("void", !request);
  setText(parts.verb, method);
  setText(parts.path, text);
  setAttr(parts.line, "title", text.length > 60 && text);
  setText(parts.origin, visible([path && route !== path && route, id && `id ${id}`].filter(Boolean).join(" · ")));
}

// The ends but the first, worst first.
const TONES = {
  failed: "red", panicked: "red", timed_out: "red", aborted: "amber", rejected: "amber", skipped: "", spilled: "",
};

// ---- Cancelling a task

let confirmed = null;
let sayTimer = 0;
function say(...parts) {
  clearTimeout(sayTimer);
  $("status").replaceChildren(...parts);
  sayTimer = setTimeout(() => $("status").replaceChildren(), 8000);
}

const OUTCOMES = {
  204: " is cancelled.",
  403: " is not cancelled: that is not allowed here.",
  404: " has already ended.",
  409: " cannot be stopped: it blocks a thread, and runs.",
};

async function cancel({ id, name }) {
  const answer = await fetch(`${base}cancel?id=${id}`, { method: "POST" }).catch(() => null);
  const failed = answer ? `the server answered ${answer.status}.` : "the server did not answer.";
  const shown = visible(name);
  const label = el("bdi", "", shown.length > 80 ? `${shown.slice(0, 80)}…` : shown);
  say(`Task ${id}, `, label, OUTCOMES[answer?.status] || ` is perhaps not cancelled: ${failed}`);
  return answer && (answer.ok || answer.status === 404);
}

function prepareCancel(button, task) {
  const set = (sent) => {
    setText(button, sent ? "Cancelling…" : "Cancel");
    setAttr(button, "aria-label", `${sent ? "Cancelling" : "Cancel"} task ${task.id}, ${visible(task.name)}`);
    setAttr(button, "aria-disabled", sent);
  };
  set(false);
  button.addEventListener("click", () => {
    if (button.hasAttribute("aria-disabled")) return;
    const { method, path, route } = task.request || {};
    setText($("confirm-title"), `Cancel task ${task.id}?`);
    setText($("confirm-name"), visible(task.name));
    setText($("confirm-request"), visible([method, path || route].filter(Boolean).join(" ")));
    confirmed = async () => {
      set(true);
      // It goes with its row, which the next snapshot does not have.
      if (await cancel(task)) setTimeout(set, 5000, false);
      else set(false);
    };
    $("confirm").showModal();
  });
}

$("keep").addEventListener("click", () => $("confirm").close());
$("sure").addEventListener("click", () => {
  $("confirm").close();
  confirmed();
});
$("confirm").addEventListener("close", () => {
  // The row may be gone.
  if (document.activeElement === document.body) $("tasks").focus({ preventScroll: true });
});
// A key that is held down presses a button once, and so does not get past the dialog.
document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter" && event.target.matches("button")) event.preventDefault();
});

// ---- The three tables

function taskRow(parts, first) {
  prepareCancel(parts.cancel, first);
  setAttr(parts.track, "aria-label", `Progress of task ${first.id}`);
  return {
    update(task) {
      const { id, name, location, request, kind, state, progress, running_seconds: run } = task;
      setName(parts, name, id, location);
      setRequest(parts, request);
      setAttr(parts.state, "data-state", state);
      setText(parts.state, capital(state));
      setText(parts.kind, kind === "blocking" ? kind : "");
      const part = Math.min(1, Math.max(0, progress || 0));
      parts.progress.classList.toggle("void", progress === null);
      parts.fill.style.transform = `scaleX(${part})`;
      setAttr(parts.track, "aria-valuenow", Math.floor(part * 100));
      setText(parts.percent, `${Math.floor(part * 100)} %`);
      const stuck = kind === "blocking" && run !== null;
      parts.cancel.hidden = stuck || !snapshot.allow_cancel;
      parts.stuck.hidden = !stuck;
    },
    tick(more) {
      const { age_seconds: age, running_seconds: run } = this.item;
      setText(parts.waited, ticking(run === null ? age + more : age - run));
      parts.waited.classList.toggle("muted", run !== null);
      setText(parts.running, run === null ? "–" : ticking(run + more));
      parts.running.classList.toggle("muted", run === null);
    },
  };
}

function groupRow(parts) {
  const tags = Object.entries(TONES).map(([end, tone]) => {
    const tag = el("span", "tag");
    setAttr(tag, "data-tone", tone);
    return { end, tag };
  });
  parts.others.append(...tags.map(({ tag }) => tag));
  const chartIn = (part) => {
    const { picture, set } = chart(part, 1);
    const value = parts[part].firstElementChild;
    parts[part].prepend(picture);
    return (text, values, title) => {
      setText(value, text);
      set(values, title);
    };
  };
  const [setEnded, setWaited, setRan] = [chartIn("ended"), chartIn("waited"), chartIn("ran")];
  const last = (values) => {
    const value = values.findLast((mean) => mean !== null);
    return value === undefined ? "–" : time(value);
  };

  return {
    update({ name, route, ends, per_second, bucket_seconds: bucket, ended, waiting_seconds, running_seconds }) {
      setName(parts, name, null, route);
      setText(parts.completed, count(ends.completed || 0));
      parts.completed.classList.toggle("muted", !ends.completed);
      for (const { end, tag } of tags) {
        tag.hidden = !ends[end];
        setText(tag, `${count(ends[end] || 0)} ${words(end)}`);
      }
      parts.others.classList.toggle("void", tags.every(({ tag }) => tag.hidden));
      setEnded(`${rate(per_second)} /s`, ended, tellEnded(ended, bucket));
      setWaited(last(waiting_seconds), waiting_seconds, tellMean("wait", waiting_seconds, bucket));
      setRan(last(running_seconds), running_seconds, tellMean("run", running_seconds, bucket));
    },
  };
}

// What is said where there is no error.
const REASONS = {
  timed_out: "It ran longer than its timeout.",
  rejected: "The runner refused it: too many tasks wait, or it shuts down.",
  aborted: "It was cancelled, or was left at the end of a shutdown.",
};

function failureRow(parts, first) {
  let open = false;
  const show = () => {
    parts.cause.classList.toggle("clamp", !open);
    setText(parts.toggle, open ? "Show less" : "Show all");
    setAttr(parts.toggle, "aria-label", `${parts.toggle.textContent} of the cause, task ${first.id}`);
    setAttr(parts.toggle, "aria-expanded", String(open));
  };
  show();
  parts.toggle.addEventListener("click", () => {
    open = !open;
    show();
  });

  return {
    update({ name, id, location, request, end, error }) {
      setName(parts, name, id, location);
      setRequest(parts, request);
      setText(parts.end, capital(end));
      setAttr(parts.end, "data-tone", TONES[end] || "");
      const text = visible(error || "", "\n\t");
      setText(parts.cause, text || REASONS[end] || "–");
      parts.cause.classList.toggle("none", !text);
      parts.toggle.hidden = text.length <= 80 && text.split("\n").length <= 2;
    },
    tick(more) {
      setText(parts.when, `${coarse(this.item.seconds_ago + more)} ago`);
    },
  };
}

const tables = {
  tasks: new Table("tasks", {
    first: 15,
    create: taskRow,
    key: (task) => task.id,
    note: (held) => snapshot.tasks_total > held && `the first ${count(held)} of ${count(snapshot.tasks_total)}`,
    empty: () => (snapshot.state === "shut_down" ? "All tasks have ended." : "All quiet. New tasks show up here."),
  }),
  groups: new Table("groups", {
    first: 12,
    create: groupRow,
    key: ({ name, route }) => JSON.stringify([name, route]),
    note: (held) => held >= 100 && "the first 100",
    empty: () => "No task has ended yet. The first one will show up here.",
  }),
  failures: new Table("failures", {
    first: 10,
    create: failureRow,
    key: ({ id, end }) => `${id} ${end}`,
    note: (held) => held >= 100 && "the newest 100",
    empty: () => "No failures. Long may it last.",
  }),
};

// ---- Header and cards

const tiles = document.querySelectorAll("[data-count]");
function setTiles(numbers) {
  for (const tile of tiles) {
    const n = numbers[tile.dataset.count] || 0;
    setText(tile.lastElementChild, count(n));
    tile.classList.toggle("zero", !n);
  }
}

const rateChart = chart("ended", 0.7);
$("rate-chart").append(rateChart.picture);

function setRate(groups) {
  const { ended, bucket_seconds: bucket } = groups[0] || { ended: Array(60).fill(0), bucket_seconds: 1 };
  const all = ended.map((_, i) => sum(groups.map((group) => group.ended[i])));
  setText($("rate"), rate(sum(groups.map((group) => group.per_second))));
  $("rate").classList.toggle("zero", $("rate").textContent === "0");
  setText($("rate-title"), `Ended in the last ${all.length * bucket} s`);
  rateChart.set(all, tellEnded(all, bucket));
}

const meters = new Map();
function setLimits(limits) {
  $("no-limits").hidden = limits.length > 0;
  for (const [name, { node }] of meters) node.hidden = !limits.some((limit) => limit.name === name);
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
    setText(meter.value, part < 1 ? count(used) : `Full: ${count(used)}`);
    setText(meter.of, `/ ${count(limit)}`);
    meter.fill.style.transform = `scaleX(${part})`;
    setAttr(meter.node, "data-level", part >= 1 ? "full" : part >= 0.8 ? "high" : "fine");
    setAttr(meter.track, "aria-valuemax", limit);
    setAttr(meter.track, "aria-valuenow", Math.min(used, limit));
    setAttr(meter.track, "aria-valuetext", `${used} of ${limit}`);
  }
}

const STATES = { ready: "Ready", unready: "Not ready", shutting_down: "Shutting down", shut_down: "Shut down" };
let deadlineWas = 0;
let phase = 1;

function setState({ state, deadline_seconds: deadline }) {
  const text = STATES[state] || capital(state);
  if ($("state").dataset.state !== state) {
    $("state").dataset.state = state;
    $("state").hidden = false;
    setText($("state"), text);
    setText($("announce"), `The runner is ${text.toLowerCase()}.`);
  }
  // A deadline that is later than the last is that of the next phase.
  if (deadline > deadlineWas) phase = deadline;
  deadlineWas = deadline || 0;
}

function setTitle() {
  const { state, totals } = snapshot || {};
  const parts = ["Background tasks"];
  if (!fresh) parts.unshift(closing() ? "Shut down" : "Connection lost");
  else {
    const failed = totals.failed + totals.panicked + totals.timed_out;
    parts.unshift(`${count(totals.running)} running, ${count(failed)} failed`);
    if (state !== "ready") parts.unshift(STATES[state] || capital(state));
  }
  document.title = parts.join(" – ");
}

/** The line below the header: a shutdown, or a connection that is lost. */
function tickBanner() {
  const { state, deadline_seconds: deadline } = snapshot || { deadline_seconds: null };
  const age = (performance.now() - receivedAt) / 1000;
  const old = coarse(age);
  const left = deadline === null ? null : Math.max(0, deadline - age);
  const counting = state === "shutting_down" && left !== null && (fresh || left > 0);
  let text = "";
  if (counting) text = `Shutting down: at most ${ticking(left)} left for what still runs or waits.`;
  else if (fresh && closing()) text = state === "shut_down" ? "Shut down. New tasks are rejected." : "Shutting down.";
  else if (!fresh && closing()) text = `The runner has shut down, or the connection is lost. Last seen ${old} ago.`;
  else if (!fresh && age > 2) text = `No connection. ${snapshot ? `What you see is ${old} old.` : "Trying again…"}`;
  $("banner").hidden = !text;
  setText($("banner-text"), text);
  setAttr($("banner"), "data-tone", counting ? "amber" : closing() ? "" : "red");
  $("banner-fill").parentElement.hidden = !counting;
  if (counting) $("banner-fill").style.transform = `scaleX(${left / phase})`;
}

// Times tick between two snapshots.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let tickedAt = 0;
setInterval(() => {
  if (document.hidden || (calm.matches && performance.now() - tickedAt < 950)) return;
  tickedAt = performance.now();
  tickBanner();
  if (!fresh) return;
  setText($("uptime"), `up ${coarse(snapshot.uptime_seconds + passed())}`);
  tables.tasks.tick();
  tables.failures.tick();
}, 200);

// ---- The data

let source = null;
let openedAt = 0;
let heardAt = 0;
let askedAt = 0;
let asking = false;

function setLink(link, text) {
  const was = $("link").dataset.link;
  setText($("link"), text);
  $("link").dataset.link = link;
  if (link !== was && link === "lost") setText($("announce"), "The connection is lost. The data is old.");
  if (link !== was && was === "lost") setText($("announce"), "The connection is back.");
}

function receive(text) {
  const uptimeWas = snapshot ? snapshot.uptime_seconds : 0;
  snapshot = JSON.parse(text);
  // The server has started anew, and its ids with it.
  if (snapshot.uptime_seconds < uptimeWas) Object.values(tables).forEach((table) => table.update([]));
  receivedAt = performance.now();
  fresh = true;
  setTitle();
  if (document.hidden) return;
  setAttr($("main"), "data-fresh", "yes");
  setLink("live", "Live");
  document.body.classList.toggle("no-cancel", !snapshot.allow_cancel);
  setState(snapshot);
  tickBanner();
  setTiles({ ...snapshot.totals, overdue: snapshot.overdue, slow_polls: snapshot.slow_polls });
  setLimits(snapshot.limits);
  setRate(snapshot.groups);
  for (const [name, table] of Object.entries(tables)) {
    table.update(snapshot[name]);
    setText($(`${name}-total`), count(name === "tasks" ? snapshot.tasks_total : snapshot[name].length));
  }
}

function lost() {
  if (fresh) lostAt = performance.now();
  fresh = false;
  setAttr($("main"), "data-fresh", "no");
  setLink("lost", "Reconnecting…");
  setTitle();
}

function connect() {
  if (source) source.close();
  openedAt = heardAt = performance.now();
  source = new EventSource(`${base}events`);
  source.onmessage = (event) => {
    heardAt = performance.now();
    receive(event.data);
  };
  source.onerror = () => {
    source.close();
    source = null;
    // The stream also ends when a shutdown begins. How that goes on is asked for.
    ask();
  };
}

async function ask() {
  if (asking) return;
  asking = true;
  askedAt = performance.now();
  try {
    const answer = await fetch(`${base}snapshot.json`, { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(answer.statusText);
    receive(await answer.text());
    const again = performance.now() - openedAt > 3000;
    if (!source && again && !document.hidden && !closing()) connect();
  } catch {
    lost();
  }
  asking = false;
}

// Without a stream, or where something between holds it back, the page asks. It asks less when nobody looks.
setInterval(() => {
  const now = performance.now();
  if (source && now - heardAt < 3500) return;
  const pause = document.hidden ? 10000 : now - receivedAt > 30000 ? 5000 : 1000;
  if (now - askedAt > pause - 100) ask();
}, 1000);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    connect();
  } else if (source) {
    source.close();
    source = null;
  }
});

// ---- The filter and the colours

function filter() {
  query = $("filter").value.trim().toLowerCase();
  if (snapshot) Object.values(tables).forEach((table) => table.show());
}
$("filter").addEventListener("input", filter);
$("filter").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  $("filter").value = "";
  filter();
});

const THEMES = ["auto", "light", "dark"];
let theme = "auto";
function setTheme(next) {
  theme = THEMES.includes(next) ? next : "auto";
  setAttr(document.documentElement, "data-theme", theme);
  setAttr($("theme"), "aria-label", `Colours: ${theme}`);
  setAttr($("theme"), "title", `Colours: ${theme}`);
}
$("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  try {
    localStorage.setItem("background-tasks-theme", theme);
  } catch { /* It lasts as long as the page. */ }
});
try {
  setTheme(localStorage.getItem("background-tasks-theme"));
} catch {
  setTheme("auto");
}

$("json").href = `${base}snapshot.json`;
if (!document.hidden) connect();
