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

{% include "dark.js" %}
  const themed = (figure) => printing || !dark.matches ? figure
    : inDark(figure, getComputedStyle(document.documentElement).getPropertyValue("--paper"));

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
