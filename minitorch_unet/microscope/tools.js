"use strict";
// What all parts use: the page's data, elements, numbers as text. Nothing here builds HTML from text: names of files and
// the like go through textContent and cannot become markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; children that are no elements become text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The same for SVG. */
function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** An array that the page holds in base64: { shape, values }, values a Float32Array or a Uint8Array. */
function unpacked(array) {
  const text = atob(array.f32 ?? array.u8);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  return { shape: array.shape, values: array.f32 === undefined ? bytes : new Float32Array(bytes.buffer) };
}

/** A number for people: four significant digits (or as asked), no exponent where it can be avoided. */
function text(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const short = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 2).replace("e+", "e") : String(Number(value.toPrecision(digits)));
  return short.replaceAll("-", "−");
}

/** How to write the numbers of a grid: with as many decimals as give its largest three digits; whole ones with none. */
function writer(values) {
  if (values.every(Number.isInteger)) return (value) => String(value).replace("-", "−");
  const most = Math.max(...values.map(Math.abs));
  const decimals = Math.min(Math.max(2 - Math.floor(Math.log10(most)), 0), 7);
  return (value) => (value === 0 ? "0" : value.toFixed(decimals).replace("-", "−"));
}

/** Bytes for people. */
function bytesText(count) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  }
  return `${count} B`;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** A cell with a number: shown short, exact in data-value. */
function numberCell(value, digits = 4) {
  return element("td", { class: "number", "data-value": value }, text(value, digits));
}

/** A table in a box that scrolls by itself. head: texts; rows: lists of cells or texts. */
function table(head, rows, attributes = {}) {
  const cell = (content, tag) => (content instanceof Element ? content : element(tag, {}, content));
  const made = element("table", attributes);
  if (head.length) {
    made.append(element("thead", {}, element("tr", {}, ...head.map((h, i) => element("th", i ? { class: "number" } : {}, h)))));
  }
  made.append(element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((c) => cell(c, "td"))))));
  return element("div", { class: "scroll" }, made);
}

/** A small block: a value and what it is. */
function fact(value, what) {
  return element("div", { class: "fact" }, element("b", {}, value), element("span", { class: "small quiet" }, what));
}

/** An option of a select. */
const option = (value, label) => element("option", { value }, label);
