"use strict";
// The OpenAPI document as a page.

async function begin() {
  const routes = document.getElementById("routes");
  try {
    const api = await call("openapi.json");
    document.getElementById("where").textContent = api.info.description;
    const all = Object.entries(api.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, route]) => shown(path, verb, route, api)));
    routes.replaceChildren(...all);
  } catch (error) {
    say(error.message, true);
    routes.replaceChildren(el("p", { class: "soft" }, "The routes are shown once the endpoint answers."));
  }
}
function shown(path, verb, route, api) {
  const parameters = route.parameters || [], body = Object.entries((route.requestBody || {}).content || {}), address = path.slice(1);
  const plain = verb === "get" && !path.includes("{");
  const rows = parameters.map((one) => el("tr", {}, el("th", { scope: "row" }, one.name), el("td", { class: "keep" }, one.in), el("td", { class: "keep" }, kind(one.schema, api)), el("td", {}, one.description || "")));
  const responses = Object.entries(route.responses || {}).map(([status, one]) => el("tr", {}, el("th", { scope: "row" }, status), el("td", {}, one.description)));
  const table = (name, lines) => (lines.length ? [el("h3", {}, name), el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, lines)))] : []);
  return el("details", {},
    el("summary", {}, el("span", { class: "verb" }, verb.toUpperCase()), el("code", {}, path), ` ${route.summary || ""}`),
    route.description ? el("p", {}, route.description) : null,
    table("Parameters", rows),
    body.length ? [el("h3", {}, "Body"), ...body.map(([type, one]) => el("div", {}, el("p", {}, el("code", {}, type)), one.schema && one.schema.format !== "binary" ? el("pre", { tabindex: "0", "aria-label": `schema of ${type}` }, el("code", {}, JSON.stringify(one.schema, null, 2))) : null))] : null,
    table("Answers", responses),
    plain ? asking(address) : null);
}
const kind = (schema, api) => {
  const found = schema && schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema || {};
  return [found.type || (found.anyOf || []).map((one) => one.type).join(" or "), found.minimum === undefined ? "" : `from ${found.minimum}`].filter(Boolean).join(" ");
};
function asking(address) {
  const out = el("pre", { hidden: true, tabindex: "0", "aria-label": `answer of ${address}` });
  const ask = async () => {
    try {
      out.textContent = JSON.stringify(await call(address), null, 2);
      out.hidden = false;
      say(`${address} has answered.`);
    } catch (error) {
      say(error.message, true);
    }
  };
  return [el("p", {}, el("button", { type: "button", onclick: ask }, `Ask for ${address}`)), out];
}
begin();
