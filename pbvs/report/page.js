"use strict";
// The page's data: every image with its errors and thumbnails. The page is self-contained and fetches nothing.
const DATA = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const TERMS = { l2: "L2", l1: "L1", lpips: "LPIPS" };
const KINDS = { source: "source", pred: "prediction", target: "target", other: DATA.other || "other" };
const MAX_ERROR = 0.5; // the last colour of the error map
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const RAMP = [[0, 0, 0], [120, 28, 109], [237, 105, 37], [252, 255, 164]];
let visible = []; // the filtered and ordered images
let current = 0;
let zoom = 0;

function byName(a, b) {
  return a.task === b.task ? a.image.localeCompare(b.image, "en", { numeric: true }) : DATA.tasks.indexOf(a.task) - DATA.tasks.indexOf(b.task);
}

function choose() {
  const task = at("task").value, order = at("order").value, query = at("find").value.trim().toLowerCase();
  const before = visible[current];
  visible = DATA.images.filter((one) => (!task || one.task === task) && one.image.toLowerCase().includes(query));
  visible.sort(order in TERMS ? (a, b) => b.terms[order] - a.terms[order] || byName(a, b) : byName);
  at("count").textContent = `${visible.length} of ${DATA.images.length} images`;
  fillList(order in TERMS ? order : "l2");
  show(Math.max(0, visible.indexOf(before)));
}

function fillList(term) {
  at("list").replaceChildren(...visible.map((one, i) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const picture = new Image(), label = document.createElement("span");
    picture.src = one.thumbs.pred;
    picture.alt = "";
    label.textContent = `${one.task} ${one.image}\n${TERMS[term]} ${one.terms[term].toFixed(4)}`;
    button.type = "button";
    button.append(picture, label);
    button.addEventListener("click", () => show(i));
    item.append(button);
    return item;
  }));
}

async function show(i) {
  const one = visible[i];
  at("stage").hidden = !one;
  if (!one) return;
  current = i;
  at("name").textContent = `${one.task} ${one.image}`;
  const text = (terms) => Object.entries(TERMS).map(([term, name]) => `${name} ${terms[term].toFixed(4)}`).join(", ");
  const other = Object.keys(one.other_terms).length ? `; ${DATA.other}: ${text(one.other_terms)}` : "";
  at("terms").textContent = text(one.terms) + other + ` (${i + 1} of ${visible.length})`;
  put("source", one.thumbs.source, `source of ${one.task} ${one.image}`);
  compare(one);
  at("full").replaceChildren(...Object.entries(one.full).flatMap(([kind, path]) => {
    const link = document.createElement("a");
    link.href = path;
    link.textContent = `${KINDS[kind]}, full size`;
    return [link, " "];
  }));
  [...at("list").children].forEach((item, n) => {
    item.firstChild.setAttribute("aria-current", String(n === i));
    if (n === i) item.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

function put(id, source, label) {
  at(id).alt = label;
  if (source) at(id).src = source; else at(id).removeAttribute("src");
}

function compare(one) {
  const [over, under] = at("pair").value.split("-").map((kind) => (one.thumbs[kind] ? kind : "pred"));
  put("over", one.thumbs[over], `${KINDS[over]} of ${one.task} ${one.image}`);
  put("under", one.thumbs[under], `${KINDS[under]} of ${one.task} ${one.image}`);
  at("sides").textContent = `left ${KINDS[over]}, right ${KINDS[under]}`;
  drawError(one, over === "source" ? "pred" : over);
}

async function pixelsOf(source, width, height) {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width || picture.naturalWidth;
  canvas.height = height || picture.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function drawError(one, kind) {
  const target = await pixelsOf(one.thumbs.target);
  const image = await pixelsOf(one.thumbs[kind], target.width, target.height);
  if (visible[current] !== one) return; // another image is selected by now
  const canvas = at("error"), out = new ImageData(target.width, target.height);
  for (let p = 0; p < out.data.length; p += 4) {
    let error = 0;
    for (let band = 0; band < 3; band++) error += Math.abs(target.data[p + band] - image.data[p + band]) / 765;
    const position = Math.min(1, error / MAX_ERROR) * (RAMP.length - 1);
    const first = Math.min(RAMP.length - 2, Math.floor(position)), part = position - first;
    for (let band = 0; band < 3; band++) out.data[p + band] = RAMP[first][band] * (1 - part) + RAMP[first + 1][band] * part;
    out.data[p + 3] = 255;
  }
  canvas.width = target.width;
  canvas.height = target.height;
  canvas.getContext("2d").putImageData(out, 0, 0);
  canvas.dataset.image = `${one.task}/${one.image}`;
}

function wipe() {
  document.documentElement.style.setProperty("--wipe", `${at("wipe").value}%`);
}

function setZoom(step) {
  zoom = step === 0 ? 0 : Math.min(ZOOMS.length - 1, Math.max(0, zoom + step));
  document.documentElement.style.setProperty("--zoom", ZOOMS[zoom]);
  document.querySelectorAll(".inner").forEach((inner) => inner.classList.toggle("zoomed", zoom > 0));
  at("zoomed").textContent = `${ZOOMS[zoom]} x`;
}

function walk(step) {
  if (visible.length) show((current + step + visible.length) % visible.length);
}

function onKey(event) {
  const isTyping = event.target.matches("input, select, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const does = { ArrowRight: () => walk(1), j: () => walk(1), ArrowLeft: () => walk(-1), k: () => walk(-1), "+": () => setZoom(1), "=": () => setZoom(1), "-": () => setZoom(-1), 0: () => setZoom(0) }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
}

function fillSamples() {
  const byKey = new Map(DATA.images.map((one) => [`${one.task}/${one.image}`, one]));
  document.querySelectorAll("[data-sample]").forEach((figure) => {
    const one = byKey.get(figure.dataset.sample);
    figure.querySelectorAll("img").forEach((picture) => {
      if (one.thumbs[picture.dataset.kind]) picture.src = one.thumbs[picture.dataset.kind];
    });
  });
}

// The panes of one image scroll together.
function scrollTogether() {
  const frames = [...document.querySelectorAll(".frame")];
  frames.forEach((frame) => frame.addEventListener("scroll", () => frames.forEach((other) => {
    if (other !== frame && other.scrollTop !== frame.scrollTop) other.scrollTop = frame.scrollTop;
    if (other !== frame && other.scrollLeft !== frame.scrollLeft) other.scrollLeft = frame.scrollLeft;
  })));
}

["task", "order"].forEach((id) => at(id).addEventListener("change", choose));
at("find").addEventListener("input", choose);
at("wipe").addEventListener("input", wipe);
at("pair").addEventListener("change", () => visible[current] && compare(visible[current]));
at("previous").addEventListener("click", () => walk(-1));
at("next").addEventListener("click", () => walk(1));
at("larger").addEventListener("click", () => setZoom(1));
at("smaller").addEventListener("click", () => setZoom(-1));
document.addEventListener("keydown", onKey);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
fillSamples();
scrollTogether();
wipe();
choose();
