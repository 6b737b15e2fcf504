"use strict";
// Asking the endpoint, with the token that its user has entered: kept in this tab of the browser, and gone with it.

const BASE = new URL(".", location.href), KEPT = `raytl-token ${BASE.pathname}`;
const token = () => sessionStorage.getItem(KEPT) || "";

// What a server before the endpoint answers with, in words: it sends a page or nothing, and over HTTP/2 no status text.
const BY_OTHERS = {
  413: "That is more than the endpoint, or a server before it, takes at once (HTTP 413).",
  502: "A server before the endpoint cannot reach it (HTTP 502); try again in a moment.",
  503: "The endpoint has no time now (HTTP 503); try again in a moment.",
  504: "The endpoint took longer than a server before it waits (HTTP 504); try again in a moment.",
};
// status: of HTTP.
class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}
async function call(path, options = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Error("The endpoint does not answer.");
  }
  const known = await answer.json().catch(() => ({}));
  if (answer.status === 401) askForToken();
  if (!answer.ok) throw new Refused((known && known.error) || BY_OTHERS[answer.status] || `HTTP ${answer.status}`, answer.status);
  return known;
}
function askForToken() {
  const form = document.getElementById("token");
  if (!form.hidden) return;
  const field = el("input", { id: "secret", type: "password", autocomplete: "off", required: true, pattern: "[\\x21-\\x7e]+", title: "the token, without spaces" });
  form.replaceChildren(el("label", { for: "secret" }, token() ? "This token is not the endpoint's. Its token: " : "This endpoint asks for its token: "), field, el("button", {}, "Use it"), el("span", { class: "soft" }, "It stays in this tab."));
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEPT, field.value);
    form.hidden = true;
    form.replaceChildren();
    say("");
    begin();
  };
  form.hidden = false;
  field.focus();
}
function copyable(name, text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(`${name} is copied.`);
    } catch {
      getSelection().selectAllChildren(code);
      say("This browser does not let pages copy; the text is selected, copy it with the keyboard.");
    }
  };
  const code = el("code", {}, text);
  return el("div", { class: "snippet" }, el("div", { class: "row" }, el("h3", {}, name), el("button", { type: "button", "aria-label": `Copy ${name}`, onclick: copy }, "Copy")), el("pre", { tabindex: "0", "aria-label": name }, code));
}
