(function () {
  "use strict";
  // Figures lie in the page as data and are drawn when they come into view, on paper all of them.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plotly-graph-div")];
  const config = { displaylogo: false, responsive: false };
  let printing = location.hash === "#print";

  const library = (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  })();

  const pen = document.createElement("canvas").getContext("2d");
  // Dark paper: grey tones change sides, pale fills turn deep, and colours that would be lost are lifted.
  function turned(color) {
    pen.fillStyle = "#000";
    pen.fillStyle = color;
    const found = pen.fillStyle, parts = found.startsWith("#")
      ? [1, 3, 5].map((at) => parseInt(found.slice(at, at + 2), 16)) : found.match(/[\d.]+/g).map(Number);
    const [r, g, b] = parts.slice(0, 3).map((value) => value / 255), alpha = parts.length > 3 ? parts[3] : 1;
    const most = Math.max(r, g, b), least = Math.min(r, g, b), light = (most + least) / 2, wide = most - least;
    const full = wide === 0 ? 0 : wide / (1 - Math.abs(2 * light - 1));
    let hue = wide === 0 ? 0 : most === r ? ((g - b) / wide) % 6 : most === g ? (b - r) / wide + 2 : (r - g) / wide + 4;
    hue *= 60;
    let turn = light;
    if (wide < 0.12) turn = Math.min(0.9, Math.max(0.12, 1.03 - light));
    else if (light > 0.72) turn = 0.1 + 0.6 * (1 - light);
    else if (0.21 * r * r + 0.72 * g * g + 0.07 * b * b < 0.17) turn = 0.45;  // about its luminance
    return "hsla(" + hue.toFixed(0) + ", " + (100 * Math.min(full, light > 0.72 ? 0.45 : 1)).toFixed(0) + "%, " + (100 * turn).toFixed(0) + "%, " + alpha + ")";
  }
  const isColor = (value) => typeof value === "string" && CSS.supports("color", value);
  function walked(value, named) {
    if (Array.isArray(value)) return value.map((one) => walked(one, named));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) =>
        [name, name === "colorscale" || name === "text" || name === "meta" ? one : walked(one, /color/i.test(name))]));
    }
    return named && isColor(value) ? turned(value) : value;
  }
  function themed(figure) {
    if (printing || !dark.matches) return figure;
    const pale = (trace) => Array.isArray(trace.colorscale) &&
      trace.colorscale.every(([, color]) => { pen.fillStyle = color; return parseInt(pen.fillStyle.slice(1, 3), 16) > 150 && parseInt(pen.fillStyle.slice(3, 5), 16) > 150; });
    const axes = (trace) => (trace.xaxis || "x") + (trace.yaxis || "y");
    const bright = new Set(figure.data.filter((trace) => trace.type === "heatmap" && !pale(trace)).map(axes));
    const data = figure.data.map((trace) => {
      if (bright.has(axes(trace))) return trace;  // what lies on a heatmap is to be seen on its colours
      const turnedTrace = walked(trace, false);
      if (trace.type === "heatmap") turnedTrace.colorscale = trace.colorscale.map(([at, color]) => [at, turned(color)]);
      return turnedTrace;
    });
    const layout = walked(figure.layout, false), paper = getComputedStyle(document.documentElement).getPropertyValue("--paper");
    for (const one of [layout, layout.template.layout]) Object.assign(one, { paper_bgcolor: paper, plot_bgcolor: paper });
    (layout.annotations || []).forEach((note, at) => {
      if (bright.has(note.xref + note.yref)) layout.annotations[at] = figure.layout.annotations[at];
    });
    return { data, layout };
  }

  function draw(plot) {
    const figure = themed(JSON.parse(plot.parentElement.querySelector("script").textContent));
    figure.layout.template = figure.layout.template || { layout: {} };
    Plotly.react(plot, figure.data, figure.layout, config);
    plot.dataset.drawn = "yes";
    tidy(plot);
  }
  // One tab stop for the buttons of a figure; the arrow keys go from one to the next.
  function tidy(plot) {
    const buttons = [...plot.querySelectorAll(".modebar-btn")];
    plot.querySelectorAll("svg.main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    buttons.forEach((button, at) => {
      button.tabIndex = at === 0 ? 0 : -1;
      button.setAttribute("role", "button");
      if (button.dataset.title) button.setAttribute("aria-label", button.dataset.title);
      button.onkeydown = (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) {
          const next = buttons[(at + step + buttons.length) % buttons.length];
          button.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
          event.preventDefault();
        }
      };
    });
  }
  const drawn = () => plots.filter((plot) => plot.dataset.drawn);
  const everything = () => plots.forEach((plot) => { if (!plot.dataset.drawn) draw(plot); });
  const folds = [...document.querySelectorAll("details")];

  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const fold = target.closest("details") || (target.parentElement && target.parentElement.querySelector("details"));
    if (fold) fold.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  const unfold = document.querySelector(".unfold");
  if (unfold) {
    unfold.hidden = false;
    unfold.addEventListener("click", () => {
      const open = !folds.every((fold) => fold.open);
      folds.forEach((fold) => { fold.open = open; });
      unfold.textContent = open ? "Fold all" : "Unfold all";
    });
  }
  library.then(() => {
    if (printing) {
      folds.forEach((fold) => { fold.open = true; });
      everything();
      document.documentElement.dataset.whole = "yes";
    }
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
      }
    }, { rootMargin: "400px" });
    plots.forEach((plot) => watcher.observe(plot));
    reveal();
    dark.addEventListener("change", () => drawn().forEach(draw));
    addEventListener("beforeprint", () => {
      folds.forEach((fold) => { fold.dataset.was = fold.open ? "open" : ""; fold.open = true; });
      printing = true;
      if (dark.matches) drawn().forEach(draw);
      everything();
    });
    addEventListener("afterprint", () => {
      folds.forEach((fold) => { fold.open = fold.dataset.was === "open"; });
      printing = false;
      if (dark.matches) drawn().forEach(draw);
    });
  });
})();
