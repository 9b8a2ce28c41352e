"use strict";
// One window of a convolution worked out: x times w, added up, bias, normalisation, ReLU. The products and sums are
// computed here, from the numbers that the engine read, and stand beside what the engine computed.

/** A table with a line below it, which may be wider than the table. */
const captioned = (made, line) => element("div", { class: "captioned" }, made, element("div", {}, line));

/** A grid of numbers; `marked(row, column)` says which are highlighted. */
function grid(rows, caption, marked = () => false) {
  const write = writer(rows.flat());
  const cells = rows.map((row, r) => element("tr", {}, ...row.map((value, c) =>
    element("td", { "data-value": value, ...(marked(r, c) ? { class: "in" } : {}) }, write(value)))));
  return captioned(element("table", { class: "grid" }, element("tbody", {}, ...cells)), caption);
}

/** Batch normalisation with its constants. */
const normalised = (z, norm) => ((z - norm.mean) / Math.sqrt(norm.var + norm.eps)) * norm.weight + norm.bias;

/** The form. window: { terms: [{ name, x, w }] with rows of numbers, rest, restCount, bias, norm, relu, result }. */
function convolutionForm(window) {
  let total = window.rest;
  const terms = window.terms.map(({ name, x, w }) => {
    const products = x.map((row, r) => row.map((value, c) => value * w[r][c]));
    const sum = products.flat().reduce((a, b) => a + b, 0);
    total += sum;
    return element("div", { class: "term" }, element("h4", {}, name),
      element("div", { class: "row" },
        element("div", { class: "row" }, grid(x, "x"), "×", grid(w, "w")),
        element("div", { class: "row" }, "=", grid(products, `x·w, sum ${text(sum)}`))));
  });
  const rows = [[`sum of ${plural(window.terms.length, "channel")} shown`, numberCell(total - window.rest)]];
  if (window.restCount) rows.push([`sum of the other ${plural(window.restCount, "channel")}`, numberCell(window.rest)]);
  rows.push(["bias", numberCell(window.bias)]);
  let value = total + window.bias;
  rows.push(["sum of everything", numberCell(value)]);
  const { norm } = window;
  if (norm?.kind === "BatchNorm2d") {
    value = normalised(value, norm);
    rows.push([`normalised: (z − ${text(norm.mean)}) / √(${text(norm.var)} + ${text(norm.eps)}) × ${text(norm.weight)} + ` +
      text(norm.bias), numberCell(value)]);
  }
  const open = norm && norm.kind !== "BatchNorm2d"; // its statistics are those of the whole map
  if (open) rows.push([`normalised (${norm.kind}) with mean and variance of whole maps, then ReLU`, "see below"]);
  else if (window.relu) rows.push(["ReLU: max(0, sum)", numberCell(Math.max(0, value))]);
  const made = table([], [...rows, ["the engine's result", numberCell(window.result)]], { class: "sum" });
  made.querySelector("tr:last-child").className = "total";
  return [element("div", { class: "terms" }, ...terms), made];
}

/** A packed array (n, R, S) as n lists of rows. */
function planes(array) {
  const { shape: [n, r, s], values } = unpacked(array);
  return Array.from({ length: n }, (_, i) => Array.from({ length: r }, (_, row) =>
    Array.from(values.subarray((i * r + row) * s, (i * r + row + 1) * s))));
}

/** Show the window of the chosen convolution for worked-out pixel number i, or that there is none (i < 0). */
function showConvolution(i) {
  const name = byId("convolution-select").value;
  const body = byId("convolution-body");
  if (i < 0) {
    body.replaceChildren(element("p", {}, "Windows are kept for the pixels marked + only; choose one of them above."));
    return;
  }
  const window = data.windows[name][i];
  const [x, w] = [planes(window.x), planes(window.w)];
  const terms = window.channels.map((channel, c) => ({ name: channel, x: x[c], w: w[c] }));
  const [row, column] = window.place;
  const part = window.rest_count ? ` The ${terms.length} channels that contribute most are shown.` : "";
  body.replaceChildren(
    element("p", {}, `${name}, filter ${window.filter}, at row ${row}, column ${column} of its map.${part}`),
    ...convolutionForm({ ...window, terms, restCount: window.rest_count }));
}

/** The example on paper: results that can be chosen, the window in the image, the same form. */
function showExample(row, column) {
  const { image, kernel, result, pooled } = data.worked;
  const inside = (r, c) => r >= row && r < row + 3 && c >= column && c < column + 3;
  const buttons = result.map((values, r) => element("tr", {}, ...values.map((value, c) => {
    const button = element("button", { type: "button", "aria-pressed": r === row && c === column,
      "aria-label": `result ${value} at row ${r}, column ${c}`, "data-value": value }, text(value));
    button.addEventListener("click", () => {
      showExample(r, c);
      byId("example-body").querySelectorAll("button")[4 * r + c].focus();
    });
    return element("td", {}, button);
  })));
  const window = image.slice(row, row + 3).map((values) => values.slice(column, column + 3));
  byId("example-body").replaceChildren(
    element("div", { class: "example" },
      grid(image, "image, 6 × 6", inside), grid(kernel, "kernel, 3 × 3"),
      captioned(element("table", { class: "grid" }, element("tbody", {}, ...buttons)), "results, 4 × 4"),
      grid(result.map((values) => values.map((value) => Math.max(0, value))), "after ReLU"),
      grid(pooled, "after 2 × 2 max pooling")),
    ...convolutionForm({ terms: [{ name: `window at row ${row}, column ${column}`, x: window, w: kernel }], rest: 0,
      restCount: 0, bias: 0, norm: null, relu: false, result: result[row][column] }));
}

byId("convolution-select").append(...Object.keys(data.windows).map((name) => option(name, name)));
showExample(0, 0);
