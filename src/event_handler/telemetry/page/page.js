"use strict";
// Draws the report that comes once a second, and the events. Everything from outside becomes text, never markup.

const MOST_EVENTS = 200; // of the tail, on the page
const STALE_AFTER = 3000; // milliseconds without a report
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function facts(list, pairs) {
  list.replaceChildren();
  for (const [term, value, className] of pairs) {
    const group = element("div");
    group.append(element("dt", term), element("dd", value, className));
    list.append(group);
  }
}

const number = (value) => (value === null || value === undefined ? "unknown" : Math.round(value).toLocaleString("en"));
const moment = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "none");

function span(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return left + " s";
  if (left < 3600) return Math.floor(left / 60) + " min " + (left % 60) + " s";
  if (left < 86400) return Math.floor(left / 3600) + " h " + Math.floor((left % 3600) / 60) + " min";
  return Math.floor(left / 86400) + " d " + Math.floor((left % 86400) / 3600) + " h";
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "unknown";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000 || unit === "GB") return (unit === "B" ? bytes : bytes.toFixed(1)) + " " + unit;
    bytes /= 1000;
  }
  return "";
}

// What was delivered, and how far reading was, in the last seconds: for rates and estimates.
const seen = new Map();

function rate(key, now, value) {
  const points = seen.get(key) || [];
  points.push([now, value]);
  while (points.length > 30) points.shift();
  seen.set(key, points);
  const [first, last] = [points[0], points[points.length - 1]];
  return last[0] > first[0] ? (last[1] - first[1]) / (last[0] - first[0]) : 0;
}

function sparkline(values) {
  const space = "http://www.w3.org/2000/svg";
  const drawn = document.createElementNS(space, "svg");
  const top = Math.max(1, ...values);
  drawn.setAttribute("viewBox", "0 0 " + Math.max(1, values.length - 1) + " 20");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", "Events a minute in the last hour, at most " + number(top));
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", values.map((value, at) => (at ? "L" : "M") + at + " " + (19 - 18 * value / top).toFixed(2)).join(" "));
  drawn.append(line);
  return drawn;
}

function drawReading(reading, report) {
  const card = element("article", undefined, "card " + (reading.connected ? (reading.position && reading.position.caught_up ? "ok" : "behind") : "failing"));
  const top = element("div", undefined, "top");
  const who = reading.sinks.length ? reading.sinks.join(", ") : "no sink";
  top.append(element("h3", "Reading for " + who));
  top.append(element("span", reading.connected ? "signed in" : "not connected", reading.connected ? "good" : "bad"));
  card.append(top);
  const list = element("dl");
  const position = reading.position;
  facts(list, [
    ["way in", reading.route ? reading.route + " at " + reading.address : "none yet"],
    ["since", moment(reading.since)],
    ["server", reading.version || "unknown"],
    ["reads by", position ? (position.mode === "bulk" ? "bulk export" : "search") : "unknown"],
    ["read up to", position ? moment(position.until) : "unknown"],
    ["chunks waiting", position ? number(position.chunks_waiting) : "unknown"],
  ]);
  card.append(list);
  if (position && !position.caught_up && position.until) card.append(backlog(reading, report));
  if (reading.failing) card.append(reason(reading.failing, reading.next_step));
  return card;
}

function drawReplica(replica) {
  const card = element("article", undefined, "card " + (replica.alive ? "ok" : "failing"));
  const top = element("div", undefined, "top");
  top.append(element("h3", replica.name + (replica.own ? " (this one)" : "")));
  top.append(element("span", replica.alive ? "works" : "gives no sign of life", replica.alive ? "good" : "bad"));
  card.append(top);
  const list = element("dl");
  facts(list, [
    ["epoch", number(replica.epoch)],
    ["running for", span(replica.since)],
    ["claims", [replica.units, ...replica.turns].join(", ")],
    ["lag", span(replica.lag)],
    ["delivered", number(replica.delivered)],
  ]);
  card.append(list);
  return card;
}

function backlog(reading, report) {
  const whole = report.now - report.start;
  const done = Math.min(1, Math.max(0, (reading.position.until - report.start) / (whole || 1)));
  const pace = rate("reading " + reading.sinks.join(), report.now, reading.position.until);
  const left = pace > 1 ? (report.now - reading.position.until) / (pace - 1) : null;
  const box = element("div");
  const bar = element("progress");
  bar.max = 1;
  bar.value = done;
  bar.setAttribute("aria-label", "Part of the log that was read");
  box.append(bar, element("p", Math.floor(done * 100) + " % of the log was read; " + (left === null ? "the end cannot be estimated yet" : "about " + span(left) + " left"), "quiet"));
  return box;
}

function reason(text, next) {
  const box = element("div", undefined, "reason");
  box.append(element("p", text, "bad"));
  if (next) box.append(element("p", "Next step: " + next));
  return box;
}

function drawSink(sink, report) {
  const behind = sink.lag === null || sink.lag > 60;
  const card = element("article", undefined, "card " + (sink.failing ? "failing" : behind ? "behind" : "ok"));
  card.dataset.sink = sink.name;
  const top = element("div", undefined, "top");
  top.append(element("h3", sink.name + " (" + sink.type + ")"));
  top.append(sink.failing ? element("span", "failing since " + moment(sink.failing_since), "bad") : element("span", sink.lag === 0 ? "nothing is missing" : "delivering", sink.lag === 0 ? "good" : "wait"));
  card.append(top);
  const delivered = sink.audit.delivered + sink.recordings.delivered;
  const sum = (name) => sink.load.reduce((all, one) => all + one[name], 0);
  const list = element("dl");
  facts(list, [
    ["lag", span(sink.lag), behind ? "wait" : undefined],
    ["rate", rate("sink " + sink.name, report.now, delivered).toFixed(1) + " events/s"],
    ["delivered", number(delivered)],
    ["requests in flight", sum("in_flight") + " of " + sum("allowed")],
    ["on their way", size(sum("bytes")) + " of " + size(sum("bytes_allowed"))],
    ["repeated requests", number(sink.audit.retries + sink.recordings.retries)],
    ["dead letters", number(sink.dead_letters), sink.dead_letters ? "bad" : undefined],
    ["recordings waiting", number(sink.recordings_waiting)],
    ["state", size(sink.state_bytes)],
    ["client certificate until", moment(sink.certificate_expires)],
  ]);
  card.append(list);
  if (sink.history.length > 1) card.append(sparkline(sink.history));
  if (sink.failing) card.append(reason(sink.failing, sink.next_step));
  return card;
}

let last = 0;

function draw(report) {
  last = Date.now();
  byId("cluster").textContent = report.cluster;
  say(report.standing_by ? "Stands by: another replica is at work" : report.ready ? "Everything works" : "Something needs attention: " + Object.entries(report.parts).filter(([, part]) => !part.ready).map(([name]) => name).join(", "), report.ready ? "good" : "bad");
  facts(byId("facts"), [
    ["identity until", moment(report.credentials_expire), report.credentials_expire - report.now < 86400 ? "wait" : undefined],
    ["renewed", report.renewals + " times"],
    ["running since", moment(report.started)],
    ["free on the state's disk", size(report.free_bytes)],
  ]);
  byId("readings").replaceChildren(...report.readings.map((reading) => drawReading(reading, report)));
  byId("replicas-section").hidden = !report.replicas.length;
  byId("replicas").replaceChildren(...report.replicas.map(drawReplica));
  byId("sinks").replaceChildren(...report.sinks.map((sink) => drawSink(sink, report)));
}

function say(text, className) {
  const overall = byId("overall");
  if (overall.textContent !== text) overall.textContent = text; // a screen reader says it once
  overall.className = className;
}

function follow() {
  const reports = new EventSource("api/reports");
  reports.onmessage = (message) => draw(JSON.parse(message.data));
  setInterval(() => {
    if (last && Date.now() - last > STALE_AFTER) say("The event handler does not answer", "bad");
  }, 500);
}

let tail = null;
let paused = false;

function followTail() {
  if (tail) tail.close();
  tail = new EventSource("api/tail?type=" + encodeURIComponent(byId("filter").value.trim()));
  tail.onmessage = (message) => {
    if (!paused) show(JSON.parse(message.data));
  };
  tail.addEventListener("missed", (message) => {
    byId("missed").hidden = false;
    byId("missed").textContent = message.data + " events came faster than they can be shown";
  });
}

function show(event) {
  const line = element("li");
  const details = element("details");
  const summary = element("summary");
  const text = (value) => (value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));
  const who = text(event.user) || text(event.login) || text(event["addr.remote"]);
  summary.append(element("time", text(event.time)), " ", element("b", text(event.event)), " " + text(event.code) + " " + who);
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(element("pre", JSON.stringify(event, null, 2)));
  });
  line.append(details);
  const list = byId("tail");
  list.prepend(line);
  while (list.childElementCount > MOST_EVENTS) list.lastElementChild.remove();
}

function pause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
}

byId("tail-form").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("change", () => {
  byId("tail").replaceChildren();
  followTail();
});
byId("pause").addEventListener("click", pause);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    byId("filter").focus();
  } else if (event.key === "p") pause();
});
follow();
followTail();
