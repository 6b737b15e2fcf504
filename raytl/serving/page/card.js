"use strict";
// The model card: what stands in the bundle's manifest, in words.

const LOGS = ["log-loss"];
// Two digits of how far it is from 0 or 1, and three at least.
const deciding = (value) => {
  const apart = Math.min(value, 1 - value);
  return value.toFixed(apart > 0 ? Math.min(20, Math.max(3, 1 - Math.floor(Math.log10(apart)))) : 3);
};
const share = (value) => `${(100 * value).toFixed(1)} %`;
const VERDICTS = { helped: "helped", harm: "did harm", "did-not": "made no difference that counts", "cannot-tell": "the data cannot tell" };
const LICENCES = { "no weights": "none needed: it began without published weights", unknown: "unknown: who published them states none" };

const AT_HAND = { inductive: "labelled images", "semi-supervised adaptation": "labelled and unlabelled images", "unsupervised adaptation": "labels of other domains and unlabelled images" };

function figure(found, metric) {
  const shown = LOGS.includes(metric) ? (value) => number(value) : share;
  const known = found.low !== null && found.low !== undefined;
  return shown(found.value) + (known ? ` (95 % interval: ${shown(found.low)} to ${shown(found.high)})` : "");
}
function figures(metrics) {
  const name = metrics.metric;
  if (!name) return Object.entries(metrics).filter(([, found]) => found && typeof found.value === "number").map(([what, found]) => [what, figure(found, what)]);
  const rows = [];
  if (metrics.test) rows.push([`${name}, on test images that were held out`, figure(metrics.test, name)]);
  if (metrics.validation) rows.push([`${name}, cross-validated`, figure(metrics.validation, name)]);
  return rows;
}
function controls(metrics) {
  const found = Object.entries(metrics.controls || {});
  if (!found.length) return null;
  const points = LOGS.includes(metrics.metric) ? (value) => number(value) : (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`;
  const rows = found.map(([name, control]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, VERDICTS[control.verdict] || control.verdict), el("td", { class: "number" }, `${points(control.value)} (${points(control.low)} to ${points(control.high)})`)));
  const heads = ["held against", "what the model has more", "difference (95 % interval)"].map((name, at) => el("th", { scope: "col", class: at === 2 ? "number" : "" }, name));
  return [el("h3", {}, "What helped"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What helped" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)))];
}
// Which part of an image is seen, and how.
function view({ resize, tiles = 1 }) {
  if (tiles > 1) return `${tiles} x ${tiles} pieces of the image`;
  return { squash: "squashed", crop: "the middle", pad: "padded" }[resize] || resize;
}
function card(model) {
  const from = model.provenance || {}, strategy = from.strategy || {}, metrics = model.metrics || {}, error = metrics.calibration_error;
  const facts = [
    ...figures(metrics),
    ["labels", model.labels.join(", ")],
    ["decides", model.threshold ? `for ${model.threshold.label} from a probability of ${deciding(model.threshold.value)} on` : "for the most probable label"],
    ["calibration error", error ? share(error.after) : null],
    ["source model", strategy.source_model || model.architecture],
    ["licence of its weights", LICENCES[from.licence] || from.licence || "not stated in this bundle"],
    ["trained on", from.trained_on],
    ["for the task", from.task ? `${from.task}${from.setting ? ` (${AT_HAND[from.setting] || from.setting})` : ""}` : null],
    ["chosen because", from.why],
    ["reads images as", `${model.image_size} x ${model.image_size}, ${model.channels === 1 ? "grey" : "colour"}, ${view(model.preprocessing)}`],
    ["version", `${model.version}, written ${model.created.slice(0, 10)} by raytl ${model.raytl}`],
  ].filter(([, value]) => value);
  const cautions = Array.isArray(metrics.cautions) ? metrics.cautions.map((told) => el("p", { class: "unlike" }, String(told))) : [];
  return [...cautions, el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), ...(controls(metrics) || [])];
}
async function standing() {
  const { health, why_not } = await call("v1/model/health");
  if (!health) return el("p", { class: "soft" }, `Whether it is still right on what comes in is not known: ${why_not}.`);
  const { value, low, high } = health.accuracy, drift = health.drift && health.drift.alarm;
  return el("p", { class: drift ? "unlike" : "" }, `On the last ${health.images} images it is right in about ${share(value)} of cases by its own estimate (${share(low)} to ${share(high)}).`, drift ? " They are of another kind than the labelled images." : "");
}
