"use strict";
// The page's data: every image with its errors and pictures. Nothing is fetched: all of it is in the page.
const DATA = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const WORST_FIRST = { l2: "L2", l1: "L1", lpips: "LPIPS" };
const MOST_ERROR = 0.5; // shown in the error map's last colour
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const RAMP = [[0, 0, 0], [120, 28, 109], [237, 105, 37], [252, 255, 164]];
let shown = []; // the images that filter and order leave
let current = 0;
let zoom = 0;

function byName(a, b) {
  return a.task === b.task ? a.image.localeCompare(b.image, "en", { numeric: true }) : DATA.tasks.indexOf(a.task) - DATA.tasks.indexOf(b.task);
}

function choose() {
  const task = at("task").value, order = at("order").value, words = at("find").value.trim().toLowerCase();
  const before = shown[current];
  shown = DATA.images.filter((one) => (!task || one.task === task) && one.image.toLowerCase().includes(words));
  shown.sort(order in WORST_FIRST ? (a, b) => b.terms[order] - a.terms[order] || byName(a, b) : byName);
  at("count").textContent = `${shown.length} of ${DATA.images.length} images`;
  fillList(order in WORST_FIRST ? order : "l2");
  show(Math.max(0, shown.indexOf(before)));
}

function fillList(term) {
  at("list").replaceChildren(...shown.map((one, i) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const picture = new Image(), words = document.createElement("span");
    picture.src = one.thumbs.made;
    picture.alt = "";
    words.textContent = `${one.task} ${one.image}\n${WORST_FIRST[term]} ${one.terms[term].toFixed(4)}`;
    button.type = "button";
    button.append(picture, words);
    button.addEventListener("click", () => show(i));
    item.append(button);
    return item;
  }));
}

async function show(i) {
  const one = shown[i];
  at("stage").hidden = !one;
  if (!one) return;
  current = i;
  at("name").textContent = `${one.task} ${one.image}`;
  const told = (terms) => Object.entries(WORST_FIRST).map(([term, name]) => `${name} ${terms[term].toFixed(4)}`).join(", ");
  const other = Object.keys(one.otherTerms).length ? `; ${DATA.other}: ${told(one.otherTerms)}` : "";
  at("terms").textContent = told(one.terms) + other + ` (${i + 1} of ${shown.length})`;
  put("source", one.thumbs.source, `source of ${one.task} ${one.image}`);
  compare(one);
  at("full").replaceChildren(...Object.entries(one.full).flatMap(([name, path]) => {
    const link = document.createElement("a");
    link.href = path;
    link.textContent = `${name}, full size`;
    return [link, " "];
  }));
  [...at("list").children].forEach((item, n) => {
    item.firstChild.setAttribute("aria-current", String(n === i));
    if (n === i) item.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

function put(id, source, words) {
  at(id).alt = words;
  if (source) at(id).src = source; else at(id).removeAttribute("src");
}

function compare(one) {
  const pair = at("pair") ? at("pair").value : "made-target";
  const [over, under] = pair.split("-").map((name) => (one.thumbs[name] ? name : "made"));
  const names = { source: "source", made: "prediction", target: "target", other: DATA.other || "other" };
  put("over", one.thumbs[over], `${names[over]} of ${one.task} ${one.image}`);
  put("under", one.thumbs[under], `${names[under]} of ${one.task} ${one.image}`);
  at("sides").textContent = `left ${names[over]}, right ${names[under]}`;
  drawError(one, over === "source" ? "made" : over);
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

async function drawError(one, made) {
  const target = await pixelsOf(one.thumbs.target);
  const image = await pixelsOf(one.thumbs[made], target.width, target.height);
  if (shown[current] !== one) return; // another one is shown by now
  const canvas = at("error"), out = new ImageData(target.width, target.height);
  for (let p = 0; p < out.data.length; p += 4) {
    let apart = 0;
    for (let band = 0; band < 3; band++) apart += Math.abs(target.data[p + band] - image.data[p + band]) / 765;
    const place = Math.min(1, apart / MOST_ERROR) * (RAMP.length - 1);
    const first = Math.min(RAMP.length - 2, Math.floor(place)), part = place - first;
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
  if (shown.length) show((current + step + shown.length) % shown.length);
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
      if (one.thumbs[picture.dataset.shows]) picture.src = one.thumbs[picture.dataset.shows];
    });
  });
}

// The panes that show one place of one image scroll together.
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
if (at("pair")) at("pair").addEventListener("change", () => shown[current] && compare(shown[current]));
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
