"use strict";
// The control room: asks the server every few seconds and draws what it is told. No library, no network but the server.

const main = document.getElementById("main");
// shown: the address whose picture is drawn, null for none. asked: the number of the last look; answers to older ones are not drawn.
let token = "", shown = null, asked = 0, timer = 0, ticked = new Set();

const badge = (status) => el("span", { class: `badge ${status}` }, status);

// The server cannot be reached, or what stands before it cannot reach it: what was drawn is still the best that is known.
class Unreachable extends Error {}
async function ask(path, body) {
  const headers = { "X-Raytl": "page" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  let answer, text, told = null;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    text = await answer.text();
  } catch {
    throw new Unreachable("The server does not answer");
  }
  try {
    told = JSON.parse(text);
  } catch {
    // A page of words, by a proxy or by a server that broke: its status tells more than its beginning.
  }
  if (answer.ok && told !== null) return told;
  const why = refusal(told || {});
  if (answer.status >= 500) throw new Unreachable(why || `The server answers HTTP ${answer.status}`);
  throw new Error(why || `HTTP ${answer.status}`);
}
// In words why something was refused: a sentence of raytl, or which field has no value to be had.
function refusal(told) {
  if (told.error) return told.error;
  if (!Array.isArray(told.detail) || !told.detail.length) return "";
  const { loc = [], msg } = told.detail[0];
  return `${loc.slice(1).join(" ")}: ${msg}`.replace(/^: /, "");
}
// Whether it went well.
async function act(path, body, done) {
  let went = true;
  try {
    await ask(path, body);
    say(done);
  } catch (error) {
    say(error.message, true);
    went = false;
  }
  look();
  return went;
}
const at = (name) => `/api/runs/${encodeURIComponent(name)}`;

// --- all runs ---------------------------------------------------------------------------------------------------------

function runs(found) {
  document.getElementById("where").textContent = found.storage;
  for (const name of ticked) if (!found.runs.some((run) => run.name === name)) ticked.delete(name);
  if (!found.runs.length) return [el("p", {}, "No runs yet; begin with: raytl search --target PATH")];
  const rows = found.runs.map((run) =>
    el("tr", { "data-key": `row ${run.name}` },
      el("td", {}, el("input", { type: "checkbox", "data-key": `tick ${run.name}`, "aria-label": `compare ${run.name}`, checked: ticked.has(run.name), onchange: (event) => tick(run.name, event.target.checked) })),
      el("td", { class: "keep" }, el("a", { "data-key": `run ${run.name}`, href: `#/run/${encodeURIComponent(run.name)}` }, run.name)),
      el("td", {}, badge(run.status), run.problem ? ` ${run.problem}` : ""),
      el("td", { class: "keep" }, run.started ? new Date(run.started).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : ""),
      el("td", { class: "number" }, duration(run.seconds)),
      el("td", { class: "number" }, run.trials),
      el("td", { class: "number" }, number(run.score)),
      el("td", { class: "number" }, number(run.test)),
      el("td", {}, run.tags.join(", ")),
      el("td", {}, run.note || "")));
  const names = ["", "run", "status", "begun", "took", "trials", "score", "test", "tags", "note"];
  const numbers = ["took", "trials", "score", "test"];
  return [
    el("h2", {}, "Runs"),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, names.map((name) => el("th", numbers.includes(name) ? { class: "number" } : {}, name)))), el("tbody", {}, rows))),
    el("p", { class: "row" }, el("button", { "data-key": "compare", disabled: ticked.size !== 2, onclick: () => { location.hash = `#/compare/${[...ticked].map(encodeURIComponent).join("/")}`; } }, "Compare two"), el("span", { class: "soft" }, "Tick two runs.")),
  ];
}
function tick(name, on) {
  if (on) ticked.add(name); else ticked.delete(name);
  look();
}

// --- one run ----------------------------------------------------------------------------------------------------------

function one(run) {
  document.title = `${run.name} · raytl`;
  const best = run.best || {}, running = run.trials.filter((trial) => trial.status === "running");
  const kinds = Object.entries(run.counts).map(([status, count]) => `${count} ${status}`).join(", ");
  const tried = run.trials.filter((trial) => trial.kind === "search").length;
  const over = run.status === "finished";
  const cards = [
    [over ? "best" : "best so far", (best.test || best.validation || "–").split(" (")[0], [run.metric, best.validation ? `validation ${best.validation}` : "", best.test ? `test ${best.test}` : ""].filter(Boolean).join(", ")],
    ["trials", run.trials.length, kinds],
    ["time", duration(run.seconds), run.time_budget_s ? `of ${duration(run.time_budget_s)}` : over ? "in all" : "so far"],
    ["lanes' time", duration(run.lane_seconds), "sum over trials"],
    ...(run.cost === null ? [] : [[over ? "cost" : "cost so far", number(run.cost, 2), "by the price given"]]),
  ];
  const phase = run.phases.length ? run.phases[run.phases.length - 1] : null;
  const part = (name, ...children) => el("div", { "data-key": `part ${name}` }, ...children);
  return [
    part("name", el("h2", {}, run.name, badge(run.status), ...run.tags.map((tag) => el("span", { class: "badge" }, tag))), el("p", { class: "soft" }, `${run.setting}, ${run.path}`), run.note ? el("p", {}, run.note) : null),
    part("cards", el("dl", { class: "cards" }, cards.map(([name, value, under]) => el("div", { class: "card" }, el("dt", {}, name), el("dd", {}, value, el("small", {}, under)))))),
    part("standing",
      run.status === "running" ? el("p", {}, el("progress", run.planned ? { max: run.planned, value: tried, "aria-label": "strategies tried" } : { max: run.time_budget_s || 1, value: run.seconds, "aria-label": "time used" }), el("span", { class: "soft" }, `${run.planned ? `${tried} of ${run.planned}` : tried} strategies begun${phase ? `; now ${phase.phase} ${phase.detail}` : ""}`)) : null,
      best.strategy && !run.sentences.length ? el("p", {}, el("b", {}, best.strategy)) : null,
      run.status === "running" ? null : el("p", {}, run.why),
      ...run.sentences.map((sentence) => el("p", {}, sentence))),
    part("command", run.command ? commanded(run.command) : null),
    part("report", run.has_report ? el("p", {}, el("a", { "data-key": "report", href: `/runs/${encodeURIComponent(run.name)}/report`, target: "_blank" }, "The report")) : null),
    part("lanes", el("h3", {}, "Lanes"), ...lanes(run, running)),
    part("curves", el("h3", {}, "Curves"), curves(run), el("p", { class: "soft" }, el("span", { class: "key running" }), "running", el("span", { class: "key best" }), "best", el("span", { class: "key" }), "others; score by epoch")),
    part("actions", el("h3", {}, "What to do"), actions(run)),
    part("board", el("h3", {}, "Leaderboard"), board(run)),
    part("failed", failed(run)),
  ];
}
function commanded(command) {
  const state = command.code === null ? "is at work" : command.code === 0 ? "is done" : "failed";
  return el("p", { class: command.code ? "bad" : "" }, `raytl ${command.command} ${state}. ${command.said || ""} `, command.url ? el("a", { "data-key": "endpoint", href: command.url }, command.url) : "");
}
function lanes(run, running) {
  const rows = running.map((trial) => {
    const last = trial.curve.length ? trial.curve[trial.curve.length - 1] : [0, null];
    const stopping = run.stopping_trials.includes(trial.number);
    return el("tr", { "data-key": `trial ${trial.number}` },
      el("td", { class: "number" }, trial.number), el("td", {}, trial.kind), el("td", { class: "wide" }, trial.strategy),
      el("td", {}, el("progress", { max: run.epochs || 1, value: last[0], "aria-label": "epochs" })),
      el("td", { class: "number" }, `${last[0]} of ${run.epochs || "?"}`), el("td", { class: "number" }, number(last[1])),
      el("td", {}, el("button", { class: "danger", "data-key": `stop ${trial.number}`, disabled: stopping, onclick: () => act(`${at(run.name)}/trials/${trial.number}/stop`, {}, `Trial ${trial.number} stops after its epoch.`) }, stopping ? "stopping" : "Stop")));
  });
  const heads = ["trial", "for", "strategy", "", "epoch", "score", ""].map((name) => el("th", ["trial", "epoch", "score"].includes(name) ? { class: "number" } : {}, name));
  const table = rows.length ? el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))) : el("p", { class: "soft" }, "No trial runs now.");
  return [table, timeline(run)];
}
function bestTrials(run) {
  const first = run.board.find((row) => row.rank === 1);
  return new Set(first ? [first.trial] : []);
}
const most = (values) => values.reduce((a, b) => Math.max(a, b)); // Math.max(...values) overflows from some 100,000 on
function timeline(run) {
  const ended = run.trials.filter((trial) => trial.ended !== null && trial.seconds > 0);
  if (!ended.length) return el("span");
  const names = [...new Set(ended.map((trial) => trial.lane || "?"))].slice(0, 32), best = bestTrials(run);
  const until = most([...ended.map((trial) => trial.ended), run.status === "running" ? run.seconds : 0, 1]);
  const width = 1100, left = 120, row = 22, height = names.length * row + 28;
  const x = (seconds) => left + (seconds / until) * (width - left - 16);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Trials by lane and time, ${duration(until)} in all` });
  names.forEach((name, index) => {
    const label = svg("text", { x: 8, y: index * row + 20 });
    label.textContent = name;
    drawing.append(label);
  });
  for (const trial of ended) {
    const index = names.indexOf(trial.lane || "?");
    if (index < 0) continue;
    const begun = Math.max(0, trial.ended - trial.seconds), kind = best.has(trial.number) ? "best" : trial.status;
    const bar = svg("rect", { class: `bar ${kind}`, x: x(begun), y: index * row + 8, width: Math.max(2, x(trial.ended) - x(begun) - 1), height: row - 8, rx: 2 });
    const title = svg("title", {});
    title.textContent = `trial ${trial.number}, ${trial.status}: ${trial.strategy}`;
    bar.append(title);
    drawing.append(bar);
  }
  for (const share of [0, 0.5, 1]) {
    const label = svg("text", { x: x(until * share), y: height - 6, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" });
    label.textContent = duration(until * share);
    drawing.append(label);
  }
  return sideways("Trials by lane and time", drawing);
}
function curves(run) {
  const drawn = run.trials.filter((trial) => trial.curve.some((look) => look[1] !== null));
  if (!drawn.length) return el("p", { class: "soft" }, "No trial has reported an epoch yet.");
  const width = 1100, height = 300, left = 68, bottom = 32, best = bestTrials(run);
  const looks = drawn.flatMap((trial) => trial.curve), scores = looks.map((look) => look[1]).filter((score) => score !== null).sort((a, b) => a - b);
  const last = most([run.epochs || 1, ...looks.map((look) => look[0])]);
  // The worst twentieth may be anywhere; it would press all others together.
  const low = scores[Math.floor(scores.length / 20)], high = scores[scores.length - 1], span = high - low || 1;
  const digits = Math.max(span < 10 ? 2 : 0, Math.min(6, 1 - Math.floor(Math.log10(span)))); // so that the levels differ
  const x = (epoch) => left + (epoch / last) * (width - left - 20);
  const y = (score) => 14 + (1 - Math.max(0, Math.min(1, (score - low) / span))) * (height - 14 - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Score by epoch of ${drawn.length} trials; the best is ${number(high, Math.max(3, digits))}` });
  for (const share of [0, 0.5, 1]) {
    const level = low + span * share, label = svg("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" });
    label.textContent = level.toFixed(digits);
    drawing.append(svg("line", { class: "axis", x1: left, x2: width - 20, y1: y(level), y2: y(level) }), label);
  }
  const names = svg("text", { x: width - 20, y: height - 8, "text-anchor": "end" });
  names.textContent = `epoch ${last}`;
  drawing.append(names);
  const order = (trial) => (best.has(trial.number) ? 2 : trial.status === "running" ? 1 : 0);
  for (const trial of [...drawn].sort((a, b) => order(a) - order(b))) {
    const points = trial.curve.filter((look) => look[1] !== null), kind = best.has(trial.number) ? "best" : trial.status;
    const line = points.length > 1
      ? svg("polyline", { class: `curve ${kind}`, points: points.map((look) => `${x(look[0])},${y(look[1])}`).join(" ") })
      : svg("circle", { class: `curve ${kind}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3.5 });
    const title = svg("title", {});
    title.textContent = `trial ${trial.number}, ${trial.status}: ${trial.strategy}`;
    line.append(title);
    drawing.append(line);
  }
  return sideways("Score by epoch", drawing);
}
// A drawing that is not made smaller than can be read: what does not fit is scrolled to, also by keyboard.
const sideways = (name, drawing) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, drawing);
// A strategy by hand: what is left open is as in the trial that it is to be like.
function byHand(run, form) {
  if (!Object.keys(run.dials).length) return null;
  const dials = Object.entries(run.dials).map(([key, dial]) => {
    const named = { name: `dial ${key}`, "data-key": `dial ${key}`, "aria-label": key };
    const control = dial.options
      ? el("select", named, el("option", { value: "" }, "as it is"), dial.options.map((option) => el("option", { value: option }, option)))
      : el("input", { ...named, type: "text", inputmode: "decimal", size: 12, placeholder: "as it is", title: dial.hint });
    return el("label", { class: "dial", "data-key": `of ${key}` }, key.replaceAll("_", " "), control);
  });
  const trials = run.trials.filter((trial) => trial.kind !== "probe");
  const send = (target) => {
    const settings = [...target.elements].filter((node) => node.name.startsWith("dial ") && node.value.trim()).map((node) => `${node.name.slice(5)}=${node.value.trim()}`);
    settings.push(...target.more.value.split("\n").map((line) => line.trim().replace(/^([\w.]+):\s*/, "$1=")).filter(Boolean));
    return act(`${at(run.name)}/try`, { settings, like: target.like.value === "" ? null : Number(target.like.value) }, "The strategy is being looked at.");
  };
  const made = form("Try a strategy", send,
    el("label", { class: "dial" }, "like trial", el("select", { name: "like", "data-key": "like" }, el("option", { value: "" }, "the best trained"), trials.map((trial) => el("option", { value: trial.number }, `${trial.number} (${number(trial.score)})`)))),
    ...dials,
    el("label", { class: "dial" }, "more settings, one a line", el("textarea", { name: "more", "data-key": "more", rows: 2, placeholder: "adaptation.weight: 0.5" })),
    el("button", { "data-key": "try" }, "Try it"),
    el("span", { class: "soft" }, run.status === "running" ? "The search tries it next." : "The run goes on by this one strategy."));
  made.classList.add("whole");
  return made;
}
// What was typed stays until it is known that it was taken.
async function submit(event, send) {
  event.preventDefault();
  const form = event.target;
  if (await send(form)) form.reset();
}
async function writeNote(name, field) {
  const text = field.value, went = await act(`${at(name)}/note`, { text }, "Noted.");
  if (went) field.defaultValue = text; // what the form goes back to
  return went;
}
function actions(run) {
  const name = run.name, field = (attributes) => el("input", attributes);
  const form = (legend, send, ...children) => el("form", { "data-key": `form ${legend}`, onsubmit: (event) => submit(event, send) }, el("fieldset", {}, el("legend", {}, legend), el("div", { class: "row" }, children)));
  return el("div", { class: "actions" },
    run.status === "running" ? form("Stop the search", () => act(`${at(name)}/stop`, {}, "The search ends after the epochs that run; it can go on later."), el("button", { class: "danger", "data-key": "stop", disabled: run.stopping }, run.stopping ? "stopping" : "Stop"), el("span", { class: "soft" }, "It can go on later.")) : null,
    run.can_go_on ? form("Go on with it", (target) => act(`${at(name)}/go-on`, { [target.unit.value]: Number(target.amount.value) }, "The search goes on."),
      field({ name: "amount", type: "number", min: 1, value: 10, required: true, "data-key": "amount", "aria-label": "how many more" }), el("select", { name: "unit", "data-key": "unit", "aria-label": "of what" }, el("option", { value: "trials" }, "more trials"), el("option", { value: "minutes" }, "more minutes")), el("button", { "data-key": "go on" }, "Go on")) : null,
    run.has_model ? form("Deploy its model", (target) => act(`${at(name)}/deploy`, { port: Number(target.port.value) }, "The endpoint is being started."),
      el("label", {}, "port ", field({ name: "port", type: "number", min: 1, max: 65535, value: 8000, required: true, "data-key": "port" })), el("button", { "data-key": "deploy" }, "Deploy")) : null,
    byHand(run, form),
    form("Tags", (target) => act(`${at(name)}/tags`, { add: target.tag.value.split(/[\s,]+/).filter(Boolean) }, "Tagged."),
      field({ name: "tag", "data-key": "tag", "aria-label": "new tag", placeholder: "in-production" }), el("button", { "data-key": "add tag" }, "Tag"),
      ...run.tags.map((tag) => el("button", { type: "button", "data-key": `untag ${tag}`, "aria-label": `take off ${tag}`, onclick: () => act(`${at(name)}/tags`, { remove: [tag] }, `${tag} is off.`) }, `${tag} ×`))),
    form("Note", (target) => writeNote(name, target.text), el("textarea", { name: "text", "data-key": "note", "aria-label": "note" }, run.note || ""), el("button", { "data-key": "write note" }, "Write")));
}
function board(run) {
  const rows = run.board.map((row) => el("tr", row.rank === 1 ? { class: "best" } : {},
    el("td", { class: "number" }, row.rank), el("td", { class: "number" }, row.trial), el("td", { class: "number" }, number(row.score)), el("td", { class: "number" }, row.validation),
    el("td", { class: "number" }, row.folds), el("td", { class: "number" }, duration(row.seconds)), el("td", {}, badge(row.status)), el("td", {}, row.label ? `${row.label}: ` : "", row.strategy)));
  const heads = ["#", "trial", "score", "validation", "folds", "took"].map((name) => el("th", { class: "number" }, name));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads, el("th", {}, "status"), el("th", {}, "strategy"))), el("tbody", {}, rows)));
}
function failed(run) {
  const lost = run.trials.filter((trial) => trial.status === "failed" && trial.reason);
  if (!lost.length) return null;
  return el("div", {}, el("h3", {}, "Failed trials"), ...lost.map((trial) => el("p", {}, `${trial.number}: ${trial.reason} `, el("span", { class: "soft" }, trial.strategy))));
}

// --- two runs ---------------------------------------------------------------------------------------------------------

const plain = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? ("value" in value ? number(value.value) : JSON.stringify(value)) : typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : String(value));
function compared(found) {
  const table = (rows) => el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["", found.a, found.b].map((name) => el("th", {}, name)))), el("tbody", {}, rows)));
  const pair = ([name, values]) => el("tr", {}, el("td", {}, name.replaceAll("_", " ")), el("td", {}, plain(values.a)), el("td", {}, plain(values.b)));
  const differing = Object.entries(found.differs).flatMap(([kind, values]) => Object.entries(values).map(([name, value]) => [`${kind}: ${name}`, value]));
  return [
    el("h2", {}, `${found.a} and ${found.b}`),
    found.gain ? el("p", {}, `${found.b} over ${found.a} on the same test images: ${number(found.gain.value)} (95 %: ${number(found.gain.low)} to ${number(found.gain.high)})`) : null,
    el("h3", {}, "How they came out"), table(Object.entries(found.results).map(pair)),
    el("h3", {}, "What was different"), differing.length ? table(differing.map(pair)) : el("p", {}, "Nothing: settings, space, data and versions are the same."),
  ].filter(Boolean);
}

// --- looking ----------------------------------------------------------------------------------------------------------

async function look() {
  clearTimeout(timer);
  const [, kind, a, b] = location.hash.split("/"), place = location.hash, mine = ++asked;
  // Whoever looked later, or at something else, draws what it is told, however late this answer comes.
  const overtaken = () => mine !== asked || place !== location.hash;
  let pause = document.hidden ? 15000 : 4000;
  try {
    let lines;
    if (kind === "run") {
      const run = await ask(at(decodeURIComponent(a)));
      if (overtaken()) return;
      lines = one(run);
      if (run.status === "running" && !document.hidden) pause = 1500;
    } else if (kind === "compare") {
      const found = await ask(`/api/compare?a=${a}&b=${b}`);
      if (overtaken()) return;
      lines = compared(found);
    } else {
      const found = await ask("/api/runs");
      if (overtaken()) return;
      document.title = "raytl control room";
      lines = runs(found);
    }
    offline("");
    draw(lines, place);
  } catch (error) {
    if (overtaken()) return;
    const passing = error instanceof Unreachable;
    offline(passing ? `${error.message.replace(/\.$/, "")}; trying again.` : "");
    if (!passing || shown !== place) {
      main.replaceChildren(el("p", { class: "bad" }, error.message));
      shown = null;
    }
  }
  timer = setTimeout(look, pause);
}
function offline(words) {
  const told = document.getElementById("offline");
  if (told.textContent !== words) told.textContent = words; // an alert is read out whenever it is written to
  told.hidden = !words;
}
function draw(lines, place) {
  const fresh = el("div", {}, lines), moved = shown !== place;
  const within = main.contains(document.activeElement), focus = within ? document.activeElement.dataset.key : undefined;
  shown = place;
  if (moved) main.replaceChildren(...fresh.childNodes);
  else renew(main, fresh);
  if (!within || main.contains(document.activeElement)) return;
  const again = moved ? main : [...main.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focus);
  if (again) again.focus({ preventScroll: true });
}
// Make what is drawn like a fresh drawing, and touch nothing else: what somebody types, has selected or opened or scrolled
// to stays. Elements with a data-key are the same where that is; others where their place and kind are. An element that
// stays keeps its listeners, so that whatever a listener speaks of has to be in the data-key.
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  for (const { name } of [...old.attributes]) if (old !== main && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const key = (node) => (node.dataset ? node.dataset.key : undefined), wanted = [...fresh.childNodes], names = new Set(wanted.map(key));
  const known = new Map();
  for (const child of [...old.childNodes]) {
    if (key(child) === undefined) continue;
    if (names.has(key(child))) known.set(key(child), child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const next of wanted) {
    const same = key(next) !== undefined ? known.get(key(next)) : at && key(at) === undefined ? at : undefined;
    if (!same || same.nodeName !== next.nodeName) {
      old.insertBefore(next, at);
      if (same && same === at) {
        at = at.nextSibling;
        same.remove();
      }
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same instanceof Element) renew(same, next);
    else if (same.nodeValue !== next.nodeValue) same.nodeValue = next.nodeValue;
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}
function route() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    try {
      token = decodeURIComponent(given[1]);
    } catch {
      token = given[1]; // typed as it is, with a % in it
    }
    history.replaceState(null, "", "/#/");
  }
  say("");
  look();
}
// The address after # says what is looked at: a leap within the page is none of those.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", look);
route();
