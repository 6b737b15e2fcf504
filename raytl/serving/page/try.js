"use strict";
// The page on which a model is tried. No library, no network but the endpoint.

const MOST = 24, SHOWN = 5, LEAST = 0.02, SIDE = 260;
const results = document.getElementById("results"), drop = document.getElementById("drop"), files = document.getElementById("files");
let waiting = Promise.resolve();
const withoutToken = []; // images that the endpoint did not take for want of its token

async function begin() {
  snippets();
  try {
    const model = await call("v1/model");
    document.title = `${model.model} · raytl`;
    document.getElementById("where").textContent = model.model;
    document.getElementById("card").replaceChildren(...card(model));
  } catch (error) {
    if (error.status !== 401) askAgain(); // it is not the token that is wrong
    say(error.message, true);
    document.getElementById("card").replaceChildren(el("p", { class: "soft" }, "The model tells about itself once the endpoint answers."));
    return;
  }
  askAgain();
  // What these do not tell is no reason to take the card away.
  const unknown = (error) => el("p", { class: "soft" }, `Whether it is still right on what comes in cannot be told now: ${error.message}`);
  document.getElementById("card").append(await standing().catch(unknown));
  const others = await call("v1/models").then((found) => found.models).catch(() => []);
  document.getElementById("models").replaceChildren(...neighbours(others));
}
function askAgain() {
  for (const given of withoutToken.splice(0)) queue(...given);
}
function neighbours(models) {
  const place = (one) => one.path.replace(/v1\/predict$/, "");
  const own = models.filter((one) => BASE.pathname.endsWith(place(one))).sort((a, b) => place(b).length - place(a).length)[0];
  if (models.length < 2 || !own) return [];
  const root = BASE.pathname.slice(0, -place(own).length); // where a server between has put the endpoint
  return [el("span", {}, "Models of this endpoint:"), ...models.map((one) => el("a", { href: root + place(one), "aria-current": one === own ? "page" : null }, one.name))];
}
function snippets() {
  const url = BASE.href.replace(/\/$/, ""), secret = token() !== "";
  const curl = `curl ${secret ? '-H "Authorization: Bearer $TOKEN" ' : ""}-F files=@photo.jpg "${url}/v1/predict?top=3"`;
  const python = `import raytl\n\nwith raytl.Client("${url}"${secret ? ', token="…"' : ""}) as client:\n    print(client.predict("photo.jpg").label)`;
  const plain = `import httpx\n\nanswer = httpx.post(\n    "${url}/v1/predict",\n    content=open("photo.jpg", "rb").read(),${secret ? '\n    headers={"Authorization": "Bearer …"},' : ""}\n)\nprint(answer.json()["predictions"][0]["label"])`;
  document.getElementById("snippets").replaceChildren(copyable("curl", curl), copyable("Python with raytl", python), copyable("Python without raytl", plain));
}

// --- images -----------------------------------------------------------------------------------------------------------

function take(list) {
  const given = [...list].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!given.length) return say("There is no image in that; save it as a file first, then choose or drop the file.", true);
  const left = document.getElementById("left");
  left.textContent = `The first ${MOST} of ${given.length} images were taken; give the others afterwards.`;
  left.hidden = given.length <= MOST;
  if (!left.hidden) say(left.textContent);
  for (const file of given.slice(0, MOST)) {
    const item = el("li", { class: "result", "aria-busy": "true" }, preview(file), el("div", {}, el("h3", {}, file.name || "pasted image"), el("p", { class: "soft" }, "Waiting for an answer …")));
    results.prepend(item);
    queue(file, item, given.length === 1);
  }
}
function queue(file, item, alone) {
  waiting = waiting.then(() => classify(file, item, alone));
}
// Files that are folders have no type either, and are told from others by reading them.
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error("This is a folder, or a file that cannot be read; choose the images themselves.");
  }
}
function preview(file) {
  const address = URL.createObjectURL(file), picture = el("img", { src: address, alt: file.name || "pasted image" });
  picture.addEventListener("load", () => URL.revokeObjectURL(address));
  picture.addEventListener("error", () => picture.replaceWith(el("p", { class: "soft" }, "No preview in this browser.")));
  return el("figure", {}, picture);
}
async function classify(file, item, alone) {
  const name = file.name || "pasted image", told = item.lastElementChild;
  try {
    await readable(file);
    const answer = await call(`v1/predict?sets=true&top=${SHOWN}`, { method: "POST", body: file });
    const said = answer.predictions[0], strange = said.none_of_these;
    // Objects put labels that are numbers into an order of their own.
    const order = Object.entries(said.probabilities).sort((a, b) => (b[0] === said.label) - (a[0] === said.label) || b[1] - a[1]);
    const bars = order.flatMap(([label, value]) => [el("span", {}, label), el("progress", { max: 1, value, "aria-label": label }), el("span", { class: "number" }, share(value))]);
    const button = el("button", { type: "button", onclick: () => explain(file, item, button, said.label, true) }, "What counted?");
    told.replaceChildren(...[
      el("h3", {}, said.label), el("p", { class: "soft" }, `${name}, ${share(said.confidence)}`),
      strange ? el("p", { class: "unlike" }, "It looks like none of these classes.") : null,
      said.labels && said.labels.length > 1 ? el("p", {}, `It may be any of: ${said.labels.join(", ")} (such a list holds the true label in 90 % of cases).`) : null,
      el("div", { class: "bars" }, bars), button].filter(Boolean));
    say(`${name}: ${said.label}, ${share(said.confidence)}${strange ? "; it looks like none of these classes" : ""}`);
    if (alone) await explain(file, item, button, said.label, false);
  } catch (error) {
    if (error.status === 401) {
      withoutToken.push([file, item, alone]);
      told.replaceChildren(el("h3", {}, name), el("p", { class: "soft" }, "Waiting for the token …"));
      return;
    }
    told.replaceChildren(el("h3", {}, name), el("p", { class: "bad" }, error.message));
    say(`${name}: ${error.message}`, true);
  }
  item.removeAttribute("aria-busy");
}

// --- what counted -----------------------------------------------------------------------------------------------------

// asked: by the button; then the answer is read out, and the focus goes to it unless it was taken elsewhere meanwhile.
async function explain(file, item, button, label, asked) {
  const lost = () => asked && [document.body, button].includes(document.activeElement);
  button.disabled = true;
  try {
    const found = await call(`v1/explain?label=${encodeURIComponent(label)}`, { method: "POST", body: file });
    const words = inWords(found), canvas = el("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": words });
    await draw(canvas, found);
    const block = el("div", { class: "counted", tabindex: "-1" }, canvas, el("div", {}, el("p", {}, words), el("p", { class: "soft" }, "This is what the model sees. The more orange a part, the less probable the label with that part covered; the frame marks the one that counted most.")));
    item.append(block);
    if (asked) say(words);
    if (lost()) block.focus();
    button.remove();
  } catch (error) {
    button.disabled = false;
    say(error.message, true);
    if (lost()) button.focus();
  }
}
function strongest(drops) {
  let best = { drop: -Infinity, row: 0, column: 0 };
  drops.forEach((values, row) => values.forEach((drop, column) => { if (drop > best.drop) best = { drop, row, column }; }));
  return best;
}
function inWords(found) {
  const best = strongest(found.drops), last = found.drops.length - 1;
  if (best.drop < LEAST) return `No single part counted for ${found.label}: covering any of ${(last + 1) ** 2} squares lowers it by at most ${(100 * Math.max(0, best.drop)).toFixed(1)} points.`;
  const third = (at, names) => names[Math.min(2, Math.floor((3 * at) / (last + 1)))];
  const place = `${third(best.row, ["upper", "middle", "lower"])} ${third(best.column, ["left", "centre", "right"])}`;
  return `What counted most for ${found.label} is at the ${place}: with it covered, it falls from ${share(found.probability)} to ${share(found.probability - best.drop)}.`;
}
async function draw(canvas, found) {
  const picture = new Image();
  picture.src = found.seen;
  await picture.decode();
  const size = found.drops.length, paper = canvas.getContext("2d"), best = strongest(found.drops);
  paper.imageSmoothingEnabled = picture.width > SIDE;
  paper.drawImage(picture, 0, 0, SIDE, SIDE);
  if (best.drop < LEAST) return;
  const heat = Object.assign(document.createElement("canvas"), { width: size, height: size }), dots = new ImageData(size, size);
  found.drops.flat().forEach((drop, at) => dots.data.set([255, 110, 0, Math.round((190 * Math.max(0, drop)) / best.drop)], 4 * at));
  heat.getContext("2d").putImageData(dots, 0, 0);
  paper.imageSmoothingEnabled = true;
  paper.drawImage(heat, 0, 0, SIDE, SIDE);
  const cell = SIDE / size;
  for (const [colour, width] of [["#000", 5], ["#fff", 2]]) {
    Object.assign(paper, { strokeStyle: colour, lineWidth: width });
    paper.strokeRect(best.column * cell + 1, best.row * cell + 1, cell - 2, cell - 2);
  }
}

// --- ways in ----------------------------------------------------------------------------------------------------------

files.addEventListener("change", () => { take(files.files); files.value = ""; });
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  take(event.clipboardData.files);
});
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("dragover", () => drop.classList.add("over"));
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => { drop.classList.remove("over"); take(event.dataTransfer.files); });
begin();
