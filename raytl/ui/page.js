"use strict";
// The control room: asks the server every few seconds and draws what it is told. No library, no network but the server.

const main = document.getElementById("main");
let token = "", shown = "", timer = 0, ticked = new Set();

const badge = (status) => el("span", { class: `badge ${status}` }, status);

async function ask(path, body) {
  const headers = { "X-Raytl": "page" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document_ = await answer.json();
  if (!answer.ok) throw new Error(document_.error || (document_.detail ? "that is not a value to be had" : answer.statusText));
  return document_;
}
async function act(path, body, done) {
  try {
    await ask(path, body);
    say(done);
  } catch (error) {
    say(error.message, true);
  }
  look();
}
const at = (name) => `/api/runs/${encodeURIComponent(name)}`;

// --- all runs ---------------------------------------------------------------------------------------------------------

function runs(found) {
  document.getElementById("where").textContent = found.storage;
  if (!found.runs.length) return [el("p", {}, "No runs yet; begin with: raytl search --target PATH")];
  const rows = found.runs.map((run) =>
    el("tr", {},
      el("td", {}, el("input", { type: "checkbox", "data-key": `tick ${run.name}`, "aria-label": `compare ${run.name}`, checked: ticked.has(run.name), onchange: (event) => tick(run.name, event.target.checked) })),
      el("td", { class: "keep" }, el("a", { href: `#/run/${encodeURIComponent(run.name)}` }, run.name)),
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
  const cards = [
    ["best so far", (best.validation || "–").split(" (")[0], [run.metric, best.validation ? `validation ${best.validation}` : "", best.test ? `test ${best.test}` : ""].filter(Boolean).join(", ")],
    ["trials", run.trials.length, kinds],
    ["time", duration(run.seconds), run.time_budget_s ? `of ${duration(run.time_budget_s)}` : "so far"],
    ["lanes' time", duration(run.lane_seconds), "sum over trials"],
    ...(run.cost === null ? [] : [["cost so far", number(run.cost, 2), "by the price given"]]),
  ];
  const phase = run.phases.length ? run.phases[run.phases.length - 1] : null;
  const lines = [
    el("h2", {}, run.name, badge(run.status), ...run.tags.map((tag) => el("span", { class: "badge" }, tag))),
    el("p", { class: "soft" }, `${run.setting}, ${run.path}`),
    run.note ? el("p", {}, run.note) : null,
    el("dl", { class: "cards" }, cards.map(([name, value, under]) => el("div", { class: "card" }, el("dt", {}, name), el("dd", {}, value, el("small", {}, under))))),
    run.status === "running" ? el("p", {}, el("progress", { max: run.planned || 1, value: tried, "aria-label": "strategies tried" }), el("span", { class: "soft" }, `${tried} of ${run.planned || "?"} strategies begun${phase ? `; now ${phase.phase} ${phase.detail}` : ""}`)) : null,
    best.strategy && !run.verdicts.length ? el("p", {}, el("b", {}, best.strategy)) : null,
    run.status === "running" ? null : el("p", {}, run.why),
    ...run.verdicts.map((sentence) => el("p", {}, sentence)),
    run.command ? commanded(run.command) : null,
    run.has_report ? el("p", {}, el("a", { href: `/runs/${encodeURIComponent(run.name)}/report`, target: "_blank" }, "The report")) : null,
    el("h3", {}, "Lanes"),
    ...lanes(run, running),
    el("h3", {}, "Curves"),
    curves(run),
    el("p", { class: "soft" }, el("span", { class: "key running" }), "running", el("span", { class: "key best" }), "best", el("span", { class: "key" }), "others; score by epoch"),
    el("h3", {}, "What to do"),
    actions(run),
    el("h3", {}, "Leaderboard"),
    board(run),
    failed(run),
  ];
  return lines.filter(Boolean);
}
function commanded(command) {
  const state = command.code === null ? "is at work" : command.code === 0 ? "is done" : "failed";
  return el("p", { class: command.code ? "bad" : "" }, `raytl ${command.command} ${state}. ${command.said || ""} `, command.url ? el("a", { href: command.url }, command.url) : "");
}
function lanes(run, running) {
  const rows = running.map((trial) => {
    const last = trial.curve.length ? trial.curve[trial.curve.length - 1] : [0, null];
    const stopping = run.stopping_trials.includes(trial.number);
    return el("tr", {},
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
function timeline(run) {
  const ended = run.trials.filter((trial) => trial.ended !== null && trial.seconds > 0);
  if (!ended.length) return el("span");
  const names = [...new Set(ended.map((trial) => trial.lane || "?"))].slice(0, 32), best = bestTrials(run);
  const until = Math.max(...ended.map((trial) => trial.ended), run.status === "running" ? run.seconds : 0, 1);
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
  return drawing;
}
function curves(run) {
  const drawn = run.trials.filter((trial) => trial.curve.some((look) => look[1] !== null));
  if (!drawn.length) return el("p", { class: "soft" }, "No trial has reported an epoch yet.");
  const width = 1100, height = 300, left = 50, bottom = 32, best = bestTrials(run);
  const looks = drawn.flatMap((trial) => trial.curve), scores = looks.map((look) => look[1]).filter((score) => score !== null).sort((a, b) => a - b);
  const last = Math.max(run.epochs || 1, ...looks.map((look) => look[0]));
  // The worst twentieth may be anywhere; it would press all others together.
  const low = scores[Math.floor(scores.length / 20)], high = scores[scores.length - 1], span = high - low || 1;
  const x = (epoch) => left + (epoch / last) * (width - left - 20);
  const y = (score) => 14 + (1 - Math.max(0, Math.min(1, (score - low) / span))) * (height - 14 - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Score by epoch of ${drawn.length} trials; the best is ${number(high)}` });
  for (const share of [0, 0.5, 1]) {
    const level = low + span * share, label = svg("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" });
    label.textContent = level.toFixed(2);
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
  return drawing;
}
// A strategy by hand: what is left open is as in the trial that it is to be like.
function byHand(run, form) {
  if (!Object.keys(run.dials).length) return null;
  const dials = Object.entries(run.dials).map(([key, dial]) => {
    const named = { name: `dial ${key}`, "data-key": `dial ${key}`, "aria-label": key };
    const control = dial.options
      ? el("select", named, el("option", { value: "" }, "as it is"), dial.options.map((option) => el("option", { value: option }, option)))
      : el("input", { ...named, type: "text", inputmode: "decimal", size: 12, placeholder: "as it is", title: dial.hint });
    return el("label", { class: "dial" }, key.replaceAll("_", " "), control);
  });
  const trials = run.trials.filter((trial) => trial.kind !== "probe");
  const send = (target) => {
    const settings = [...target.elements].filter((node) => node.name.startsWith("dial ") && node.value.trim()).map((node) => `${node.name.slice(5)}=${node.value.trim()}`);
    settings.push(...target.more.value.split("\n").map((line) => line.trim().replace(/^([\w.]+):\s*/, "$1=")).filter(Boolean));
    act(`${at(run.name)}/try`, { settings, like: target.like.value === "" ? null : Number(target.like.value) }, "The strategy is being looked at.");
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
function actions(run) {
  const name = run.name, field = (attributes) => el("input", attributes);
  const form = (legend, onsubmit, ...children) => el("form", { onsubmit: (event) => { event.preventDefault(); onsubmit(event.target); event.target.reset(); } }, el("fieldset", {}, el("legend", {}, legend), el("div", { class: "row" }, children)));
  return el("div", { class: "actions" },
    run.status === "running" ? form("Stop the search", () => act(`${at(name)}/stop`, {}, "The search ends after the epochs that run; it can go on later."), el("button", { class: "danger", "data-key": "stop", disabled: run.stopping }, run.stopping ? "stopping" : "Stop"), el("span", { class: "soft" }, "It can go on later.")) : null,
    run.extends ? form("Go on with it", (target) => act(`${at(name)}/extend`, { [target.unit.value]: Number(target.amount.value) }, "The search goes on."),
      field({ name: "amount", type: "number", min: 1, value: 10, required: true, "data-key": "amount", "aria-label": "how many more" }), el("select", { name: "unit", "data-key": "unit", "aria-label": "of what" }, el("option", { value: "trials" }, "more trials"), el("option", { value: "minutes" }, "more minutes")), el("button", { "data-key": "extend" }, "Go on")) : null,
    run.has_model ? form("Deploy its model", (target) => act(`${at(name)}/deploy`, { port: Number(target.port.value) }, "The endpoint is being started."),
      el("label", {}, "port ", field({ name: "port", type: "number", min: 1, max: 65535, value: 8000, required: true, "data-key": "port" })), el("button", { "data-key": "deploy" }, "Deploy")) : null,
    byHand(run, form),
    form("Tags", (target) => act(`${at(name)}/tags`, { add: target.tag.value.split(/[\s,]+/).filter(Boolean) }, "Tagged."),
      field({ name: "tag", "data-key": "tag", "aria-label": "new tag", placeholder: "in-production" }), el("button", { "data-key": "add tag" }, "Tag"),
      ...run.tags.map((tag) => el("button", { type: "button", "data-key": `untag ${tag}`, "aria-label": `take off ${tag}`, onclick: () => act(`${at(name)}/tags`, { remove: [tag] }, `${tag} is off.`) }, `${tag} ×`))),
    form("Note", (target) => act(`${at(name)}/note`, { text: target.text.value }, "Noted."), el("textarea", { name: "text", "data-key": "note", "aria-label": "note" }, run.note || ""), el("button", { "data-key": "write note" }, "Write")));
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
  const [, kind, a, b] = location.hash.split("/"), place = location.hash;
  let pause = document.hidden ? 15000 : 4000;
  try {
    let lines;
    if (kind === "run") {
      const run = await ask(at(decodeURIComponent(a)));
      lines = one(run);
      if (run.status === "running" && !document.hidden) pause = 1500;
    } else if (kind === "compare") {
      lines = compared(await ask(`/api/compare?a=${a}&b=${b}`));
    } else {
      document.title = "raytl control room";
      lines = runs(await ask("/api/runs"));
    }
    document.getElementById("offline").hidden = true;
    if (place !== location.hash) return;
    draw(lines);
  } catch (error) {
    if (error instanceof TypeError) document.getElementById("offline").hidden = false;
    else main.replaceChildren(el("p", { class: "bad" }, error.message));
  }
  timer = setTimeout(look, pause);
}
function draw(lines) {
  const fresh = el("div", {}, lines), key = fresh.innerHTML;
  if (key === shown) return;
  // What somebody is filling in, and where the focus is, stays over a new drawing.
  const focus = main.contains(document.activeElement) ? document.activeElement.getAttribute("data-key") : null;
  const kept = new Map([...main.querySelectorAll("input:not([type=checkbox]), select, textarea")].filter((node) => node.value !== node.defaultValue && node.dataset.key).map((node) => [node.dataset.key, node.value]));
  shown = key;
  main.replaceChildren(...fresh.childNodes);
  for (const node of main.querySelectorAll("[data-key]")) {
    if (kept.has(node.dataset.key)) node.value = kept.get(node.dataset.key);
    if (focus !== null && node.dataset.key === focus) node.focus({ preventScroll: true });
  }
}
function route() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    token = decodeURIComponent(given[1]);
    history.replaceState(null, "", "/#/");
  }
  shown = "";
  say("");
  look();
}
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", look);
route();
