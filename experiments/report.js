"use strict";
// Without it the page loses the gene browser and the sorting of tables, and nothing else.
(() => {
  const make = (tag, attributes = {}, ...inside) => {
    const svg = ["svg", "path", "line", "circle", "rect", "text", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...inside);  // text is text: names are never read as HTML
    return node;
  };
  const value = text => {
    const found = text.trim().replace(/−/g, "-").replace(/,/g, "").match(/^-?\d+(\.\d+)?/);
    return found ? parseFloat(found[0]) : NaN;
  };

  for (const table of document.querySelectorAll("main table")) {
    const body = table.tBodies[0];
    if (!body || body.rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button", title: "sort by this column" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        // What is best comes first: high scores, but the lowest rank and error, and names from A.
        const low = /^(rank|MSE|RMSE|p$)/.test(head.textContent.trim()) || head.classList.contains("text");
        const up = before ? before === "descending" : low;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = row => row.cells[column].textContent;
        body.append(...[...body.rows].sort((a, b) => {
          const [x, y] = [value(key(a)), value(key(b))];
          if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? (up ? 1 : -1) * key(a).localeCompare(key(b), "en", { numeric: true }) : isNaN(x) - isNaN(y);
          return up ? x - y : y - x;
        }));
      });
    });
  }

  // A figure tells the value that is nearest to the pointer, or where the arrow keys lead.
  const tip = make("div", { id: "tip", role: "status", hidden: "" });
  document.body.append(tip);
  const slim = matchMedia("(max-width: 36rem)"), near = 24;  // px
  for (const picture of document.querySelectorAll("picture[data-hints]")) {
    const { hints, hintsNarrow } = picture.dataset, read = {};
    const places = () => read[slim.matches] ??= JSON.parse(slim.matches && hintsNarrow || hints);
    const show = (found, box) => {
      tip.hidden = !found;
      if (!found) return;
      const [left, top, right, , text] = found;
      tip.textContent = text;
      tip.style.left = tip.style.top = 0;  // as wide as the text
      const x = box.left + (left + right) / 2000 * box.width - tip.offsetWidth / 2;
      const y = box.top + top / 1000 * box.height - tip.offsetHeight - 8;
      tip.style.left = `${scrollX + Math.max(4, Math.min(document.documentElement.clientWidth - tip.offsetWidth - 4, x))}px`;
      tip.style.top = `${scrollY + Math.max(0, y)}px`;
    };
    const nearest = event => {
      const box = picture.getBoundingClientRect();
      const x = 1000 * (event.clientX - box.left) / box.width, y = 1000 * (event.clientY - box.top) / box.height;
      let found, least = near;
      for (const place of places()) {
        const [left, top, right, bottom] = place;
        const away = Math.hypot(Math.max(left - x, 0, x - right) * box.width, Math.max(top - y, 0, y - bottom) * box.height);
        const middle = Math.hypot((left + right) / 2 - x, (top + bottom) / 2 - y);  // of places that overlap
        const far = away / 1000 + middle / 1e4;
        if (far < least) [found, least] = [place, far];
      }
      show(found, box);
    };
    let at = -1;
    for (const kind of ["pointermove", "pointerdown"]) picture.addEventListener(kind, nearest);
    for (const kind of ["pointerleave", "blur"]) picture.addEventListener(kind, () => show());
    picture.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], many = places().length;
      if (event.key === "Escape") show();
      if (!step || !many) return;
      at = at < 0 && step < 0 ? many - 1 : (at + step + many) % many;
      event.preventDefault();
      show(places()[at], picture.getBoundingClientRect());
    });
  }

  const place = document.getElementById("browser");
  if (!place) return;
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const label = gene => gene.name && gene.name !== gene.id ? `${gene.name} (${gene.id})` : gene.id;
  const shown = number => number.toFixed(2).replace("-", "−");
  const labels = "labels" in place.dataset, seen = value => value !== null && labels ? (value ? "expressed" : "not expressed") : value === null ? "" : shown(value);
  const list = make("datalist", { id: "gene-names" }, ...data.genes.map(gene => make("option", { value: label(gene) })));
  const search = make("input", { id: "gene", type: "search", list: "gene-names", autocomplete: "off" });
  const cell = make("select", { id: "cell" }, ...data.cells.map((name, i) => make("option", { value: i }, name)));
  const previous = make("button", { type: "button" }, "previous"), next = make("button", { type: "button" }, "next");
  const said = make("output", { "aria-live": "polite" }), view = make("div");
  place.append(make("p", { class: "controls" },
    make("label", {}, "gene ", search), make("label", {}, "cell ", cell), previous, next), list, said, view);
  let at = 0;

  const axis = (low, high) => x => 100 * (x - low) / (high - low);
  // Sets of assays may be broken after a plus; on a phone a long name has a line of its own.
  const row = (name, picture, text) => make("div", { class: name.length > 10 ? "row long" : "row" },
    make("span", { class: "name" }, ...name.split(/(?<=\+)/).flatMap(part => [part, make("wbr")])),
    picture, make("span", { class: "value" }, text));

  // Values under the pointer, or where the arrow keys lead.
  const reader = (svg, count, textAt, output) => {
    const line = make("line", { y1: 0, y2: 100, class: "cursor" });
    let bin = count / 2 | 0;
    const show = () => {
      const x = 100 * (bin + 0.5) / count;
      line.setAttribute("x1", x), line.setAttribute("x2", x);
      if (!line.parentNode) svg.append(line);
      output.textContent = textAt(bin);
    };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect();
      bin = Math.max(0, Math.min(count - 1, Math.floor(count * (event.clientX - box.left) / box.width)));
      show();
    });
    svg.addEventListener("focus", show);
    svg.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      bin = Math.max(0, Math.min(count - 1, bin + step));
      event.preventDefault();
      show();
    });
  };
  const steps = (values, top) => {
    const points = values.map((v, i) => `H${100 * i / values.length}V${100 - 96 * Math.max(0, Math.min(1, v / top))}`);
    return make("path", { d: `M0 100${points.join("")}H100V100Z`, class: "signal" });
  };
  const panel = name => make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", tabindex: 0, role: "img", "aria-label": name });

  const predictions = (gene, c) => {
    const own = gene.predicted[c], observed = gene.observed[c];
    const every = [...own, observed, 0].filter(v => v !== null), x = axis(Math.min(...every), Math.max(...every, 1));
    return own.flatMap((predicted, a) => {
      if (predicted === null || observed === null) return [];
      const text = labels ? shown(predicted) : `${shown(predicted)} (${predicted < observed ? "" : "+"}${shown(predicted - observed)})`;
      const picture = make("svg", { role: "img", "aria-label": text },
        make("line", { x1: `${x(observed)}%`, x2: `${x(predicted)}%`, y1: "50%", y2: "50%", class: "error" }),
        make("line", { x1: `${x(observed)}%`, x2: `${x(observed)}%`, y1: "0", y2: "100%", class: "zero" }),
        make("circle", { cx: `${x(predicted)}%`, cy: "50%", r: 5, class: "dot" }),
        make("title", {}, `${data.assays[a]}: predicted ${shown(predicted)}, ${labels ? "label" : "observed"} ${seen(observed)}`));
      return [row(data.assays[a], picture, text)];
    });
  };

  const draw = () => {
    const gene = data.genes[at], c = +cell.value;
    search.value = label(gene);
    said.textContent = `${label(gene)}, ${gene.chrom}` + (gene.tss === undefined ? "" : `:${(gene.tss + 1).toLocaleString("en")} ${gene.strand}`);
    const parts = [];
    const observed = gene.observed[c];
    const rows = predictions(gene, c);
    const head = labels ? `Predicted ${place.dataset.unit} (label: ${seen(observed)}, the upright line)` : `Predicted expression (observed: ${seen(observed)}, the upright line), ${place.dataset.unit}`;
    parts.push(make("h3", {}, rows.length ? head : "No prediction in this cell"), ...rows);
    if (gene.tracks) {
      const bytes = Uint8Array.from(atob(gene.tracks), character => character.charCodeAt(0)), n = data.bins, bp = data.window / n;
      const read = make("output", { class: "key" }, "Move over a track, or go along it with the arrow keys.");
      parts.push(make("h3", {}, `Signal, ${(data.window / 1000)} kb around the TSS, in genomic order, means of ${Math.round(bp)} bp (height: square root; tall peaks are cut)`), read);
      data.marks.forEach(([mark, top], m) => {
        const begin = (c * data.marks.length + m) * n, values = [...bytes.slice(begin, begin + n)];
        const svg = panel(`signal of ${mark}`);
        svg.append(steps(values.map(Math.sqrt), 16), make("line", { x1: 50, x2: 50, y1: 0, y2: 100, class: "zero" }));
        reader(svg, n, bin => `${mark}: ${values[bin] === 255 ? "at least " : ""}${(values[bin] * top / 255).toPrecision(2)} at ${(((bin + 0.5) * bp - data.window / 2) / 1000).toFixed(2)} kb from the TSS`, read);
        const most = Math.max(...values);
        parts.push(row(mark, svg, `max ${most === 255 ? "≥ " : ""}${(most * top / 255).toPrecision(2)}`));
      });
    }
    const edits = (gene.edits || []).filter(edit => edit[0] === c);
    if (edits.length) {
      parts.push(make("h3", {}, "Edits: change of the prediction"));
      const most = Math.max(...edits.map(edit => Math.abs(edit[2])), 1e-9), x = axis(-most, most);
      for (const [, name, effect] of edits) {
        const ends = [x(Math.min(0, effect)), x(Math.max(0, effect))];
        parts.push(row(name, make("svg", { role: "img", "aria-label": name },
          make("rect", { x: `${ends[0]}%`, width: `${ends[1] - ends[0]}%`, y: "20%", height: "60%", class: "bar" }),
          make("line", { x1: "50%", x2: "50%", y1: 0, y2: "100%", class: "zero" }),
          make("title", {}, `${name}: ${effect}`)), effect.toFixed(3).replace("-", "−")));
      }
    }
    const contacts = (gene.contacts || {})[c] || [];
    if (contacts.length) {
      parts.push(make("h3", {}, "Contacts of the promoter, kb from the TSS"));
      const far = Math.max(...contacts.flatMap(([a, b]) => [Math.abs(a - gene.tss), Math.abs(b - gene.tss)])), x = axis(-far, far);
      for (const [a, b, score] of contacts) {
        const [from, to] = [x(a - gene.tss), x(b - gene.tss)], km = bp => ((bp - gene.tss) / 1000).toFixed(1).replace("-", "−");
        parts.push(row(`${km(a)} to ${km(b)}`, make("svg", { role: "img", "aria-label": `score ${score}` },
          make("line", { x1: "50%", x2: `${(from + to) / 2}%`, y1: "50%", y2: "50%", class: "error" }),
          make("rect", { x: `${from}%`, width: `${Math.max(0.6, to - from)}%`, y: "15%", height: "70%", class: "bar" }),
          make("line", { x1: "50%", x2: "50%", y1: 0, y2: "100%", class: "zero" })), `score ${score}`));
      }
    }
    view.replaceChildren(...parts);
  };
  const go = to => { at = (to + data.genes.length) % data.genes.length; draw(); };
  search.addEventListener("change", () => {
    const asked = search.value.trim(), text = asked.toLowerCase().replace(/^(ens[a-z]*\d+)\.\d+$/, "$1");
    const names = gene => [label(gene), gene.name, gene.id].map(name => name.toLowerCase());
    let found = data.genes.findIndex(gene => names(gene).includes(text));
    const begin = text ? data.genes.filter(gene => names(gene).some(name => name.startsWith(text))) : [];
    if (found < 0 && begin.length === 1) found = data.genes.indexOf(begin[0]);
    if (found >= 0) return go(found);
    draw();
    if (begin.length) said.textContent = `${asked}: ${begin.length} genes of this page begin so; this is still ${label(data.genes[at])}`;
    else if (text) said.textContent = `${asked} is not on this page; this is still ${label(data.genes[at])}. To add a held-out gene of the store: python -m experiments.report --run=RUN --browser_genes=${asked}`;
  });
  search.addEventListener("focus", () => search.select());
  cell.addEventListener("change", draw);
  previous.addEventListener("click", () => go(at - 1));
  next.addEventListener("click", () => go(at + 1));
  draw();
})();
