// What the page does without asking the server: events are sent one at a time, figures are put on light or dark paper, the selection is marked.
(function () {
  "use strict";
  const nothing = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  let session = null, waiting = false, count = 0;
  const queue = [];

  // The server answers each event with a session; the next event is about that one.
  function send(event) {
    if (event.do === "key" && queue.length > 20) return;
    const last = queue[queue.length - 1];
    if (last && event.do === "dose" && last.do === "dose") queue.pop();
    queue.push(event);
    next();
  }
  function next() {
    if (waiting || !queue.length || !session) return;
    waiting = true;
    document.body.dataset.waiting = "yes";
    set("event", { data: { ...queue.shift(), count: ++count } });
  }

  const value = (id) => { const field = document.getElementById(id); return field ? field.value : ""; };
  const how = () => (document.querySelector("#how input:checked") || {}).value || "select";
  const dose = () => Math.round(1e4 * 10 ** doseAt) / 1e4;
  let doseAt = -1;
  const matches = (part) => part && Object.keys(part).length > 0 && Object.entries(part).every(([name, one]) => session.state[name] === one);

  // The selection is a frame above a figure, which need not be drawn again for it.
  function mark(name) {
    const raw = shown[name] && shown[name].raw, plot = plotOf(name), place = document.getElementById("marks-" + name);
    if (!place) return;
    const frames = [];
    const row = raw ? raw.cells.rows.findIndex(matches) : -1, column = raw ? raw.cells.columns.findIndex(matches) : -1;
    if (plot && plot._fullLayout && (row >= 0 || column >= 0)) {
      for (const [x, y] of raw.cells.axes) {
        const across = plot._fullLayout[x.replace("x", "xaxis")], up = plot._fullLayout[y.replace("y", "yaxis")];
        if (!across || !up) continue;
        const ends = (axis, at) => at < 0 ? [0, axis._length] : [axis.d2p(at - 0.5), axis.d2p(at + 0.5)].sort((a, b) => a - b);
        const [left, right] = ends(across, column), [top, bottom] = ends(up, row < 0 ? row : row + raw.cells.first);
        const frame = document.createElement("i");
        Object.assign(frame.style, {
          left: across._offset + left + "px", width: right - left + "px", top: up._offset + top + "px", height: bottom - top + "px",
        });
        frames.push(frame);
      }
    }
    place.replaceChildren(...frames);
    if (frames.length) reach(name, raw);
  }
  const markAll = () => Object.keys(shown).forEach(mark);
  addEventListener("resize", () => setTimeout(markAll, 400));

  const plotOf = (name) => document.getElementById("figure-" + name);
  const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false, doubleClick: false };
  function listen(name) {
    const plot = plotOf(name);
    if (!plot || !plot.on || plot.dataset.listens) return;
    plot.dataset.listens = "yes";
    plot.on("plotly_click", (click) => {
      const point = click.points[0], cells = shown[name] && shown[name].raw.cells;
      if (!cells || point.data.type !== "heatmap") return;
      const row = cells.rows[Math.round(point.y) - cells.first], column = cells.columns[Math.round(point.x)];
      const part = { ...row, ...column, ...cells.curves[point.curveNumber] };
      if (Object.keys(part).length) send({ do: "cell", how: how(), amount: dose(), ...part });
    });
  }

  const shown = {};
  const flat = (figure) => JSON.parse(JSON.stringify(figure));
  function laid(raw, dark) {
    let figure = flat(raw.figure);
    figure.layout.template = figure.layout.template || { layout: {} };
    if (dark) figure = window.inDark(figure, getComputedStyle(document.body).getPropertyValue("--panel").trim());
    const layout = figure.layout, top = (layout.margin && layout.margin.t) || 56, kept = Math.min(top, 38);
    delete layout.width; delete layout.height;
    Object.assign(layout, { autosize: true, title: { text: "" }, margin: { ...layout.margin, t: kept } });
    return { figure, less: top - kept };
  }

  function drawn(raw, scheme, id) {
    const name = id.replace("figure-", ""), before = shown[name] || {}, dark = scheme === "dark";
    const same = [nothing(), nothing(), nothing(), nothing(), nothing()];
    if (!raw || raw.problem !== undefined) {
      const said = raw ? raw.problem : "";
      if (!before.raw && before.problem === said) return same;
      shown[name] = { problem: said };
      mark(name);
      return [said, true, nothing(), "", true];
    }
    if (!scheme || (before.raw === raw && before.dark === dark)) return same;
    shown[name] = { raw, dark };
    const { figure, less } = laid(raw, dark);
    setTimeout(() => {  // once its place is on the page
      if (shown[name].raw !== raw) return;
      window.Plotly.react(plotOf(name), figure.data, figure.layout, CONFIG).then(() => { listen(name); mark(name); });
    }, 0);
    return [raw.said, false, { "--w": raw.width + "px", "--h": raw.height - less + "px" }, raw.words, false];
  }
  // On a narrow page the selected column is brought into view.
  function reach(name, raw) {
    const wide = document.getElementById("wide-" + name), column = raw.cells.columns.findIndex(matches);
    const axis = plotOf(name) && plotOf(name)._fullLayout && plotOf(name)._fullLayout[raw.cells.axes.length ? raw.cells.axes[0][0].replace("x", "xaxis") : ""];
    if (!wide || !axis || column < 0 || wide.scrollWidth <= wide.clientWidth) return;
    const at = axis._offset + axis.d2p(column);
    if (at < wide.scrollLeft + 20 || at > wide.scrollLeft + wide.clientWidth - 20) wide.scrollLeft = at - wide.clientWidth / 2;
  }

  const remembered = {}, later = {};
  const LATER = ["cone", "gain"];  // after the numbers, which are there sooner
  function needs(sent) {
    session = sent;
    waiting = false;
    document.body.dataset.waiting = "";
    history.replaceState(null, "", sent.address || location.pathname);
    const at = sent.state, base = at.corrupt ? at.changed : "clean", text = at.shown === "corrupt" && at.corrupt ? at.corrupt : at.clean;
    const changedText = base === "clean" ? at.clean : at.corrupt, pair = [at.model, at.clean, at.corrupt, at.answer, at.wrong];
    const spread = at.changes.filter((one) => one.kind === "inject" && one.on).pop();
    const open = document.getElementById("open-attribution");
    const told = {
      texts: [...pair, base], runs: [...pair, base, at.changes], past: sent.past,
      look: [at.model, text, at.layer, at.head, at.position], live: [at.model, at.clean, at.corrupt, at.temperature, at.seed],
      lens: [at.model, text, at.lens, sent.length > 16 ? at.position : 0], patching: [...pair, base, at.site],
      head: [at.model, text, at.layer, at.head], heads: [at.model, text, at.layer],
      cone: spread ? [at.model, changedText, spread] : null, gain: spread ? [at.model, changedText, spread] : null,
      attribution: open && open.open ? pair : null, circuit: pair,
    };
    setTimeout(next, 0);
    return window.dash_clientside.callback_context.outputs_list.map(({ id }) => {
      if (id === "now") return sent.state;
      const name = id.replace("need-", ""), key = JSON.stringify(told[name]);
      if (remembered[name] === key) return nothing();
      remembered[name] = key;
      const need = told[name] === null ? null : { of: key };
      if (!LATER.includes(name)) return need;
      later[name] = need;
      return nothing();
    });
  }

  const FIELDS = ["model", "clean", "corrupt", "answer", "wrong", "changed", "site", "shown", "lens", "temperature"];
  // Fields show the state, but for the one that is being written in; what is as it was is not set again.
  const filledWith = {};
  function filled(sent) {
    const at = sent.state, active = document.activeElement && document.activeElement.id;
    const told = (name, now) => {
      if (filledWith[name] === now && !sent.message) return nothing();
      filledWith[name] = now;
      return now;
    };
    const values = FIELDS.map((name) => (name === active && value(name) !== at[name] && !sent.message ? nothing() : told(name, at[name])));
    const place = "Layer " + at.layer + ", position " + at.position + ", head " + at.head;
    return [...values, sent.dose === null || sent.dose === undefined ? nothing() : told("dose", Math.log10(sent.dose)), told("message", sent.message || ""),
      told("place", place + ". Arrow keys move it on tokens and figures, with Shift the head; Escape goes back to the last token.")];
  }

  function changed(...given) {
    const context = window.dash_clientside.callback_context, sent = given[given.length - 1];
    if (!sent) return nothing();
    for (const { prop_id: from, value: now } of context.triggered) {
      const name = from.split(".")[0];
      filledWith[name] = now;
      if (name === "dose") {
        doseAt = now;
        const said = document.getElementById("dose-said");
        if (said) said.textContent = "Dose " + dose();
        const has = sent.state.changes.some((one) => one.kind === "inject" || one.kind === "steer");
        if (has && Math.abs(Math.log10(sent.dose) - now) > 1e-3) send({ do: "dose", amount: dose() });
      } else if (name === "task") {
        if (now) send({ do: "example", task: now, seed: examples });
      } else if ((now || "") !== sent.state[name] && !(now === null && !sent.state[name]) && now !== sent.state[name]) {
        send({ do: "set", name, value: now });
      }
    }
    return nothing();
  }
  let examples = 0;

  // Rows of the page, each text put in as text.
  function made(tag, named, ...inner) {
    const element = document.createElement(tag);
    for (const [name, one] of Object.entries(named || {})) element.setAttribute(name, one);
    element.append(...inner);
    return element;
  }
  const put = (id, ...inner) => { const place = document.getElementById(id); if (place) place.replaceChildren(...inner); };
  const soft = (said) => made("p", { class: "soft" }, said);
  function chip(one, run) {
    const token = made("button", { class: "token" + (one.differs ? " differs" : ""), title: one.title, "data-position": one.position }, one.text);
    if (run) Object.assign(token.dataset, { run });
    token.draggable = run === "other";
    if (one.share !== undefined) { token.dataset.share = one.share.toFixed(6); token.style.setProperty("--share", one.dark); }
    return token;
  }
  function show_texts(told) {
    if (!told) return nothing();
    put("tokens", ...(told.problem ? [soft(told.problem)] : told.rows.map((row) => made("div", { class: "tokens", role: "group", "aria-label": "Tokens of the " + row.which + " text" },
      made("b", {}, row.label), made("span", { class: "row", "data-run": row.run }, ...row.tokens.map((one) => chip(one, row.run)))))));
    markTokens();
    return nothing();
  }
  function show_look(told) {
    if (!told) return nothing();
    put("attended", ...(told.problem ? [soft(told.problem)] : told.tokens.map((one) => chip(one))));
    markTokens();
    return nothing();
  }
  function show_past(told) {
    if (!told) return nothing();
    const listed = (told.runs || []).map((one) => made("button", { class: "run", "data-do": "back", "data-number": one.number }, one.called));
    put("runs", ...(listed.length ? listed : [soft(told.problem || "Runs before this one will stand here.")]));
    return nothing();
  }
  function show_runs(told) {
    if (!told) return nothing();
    for (const name of Object.keys(later)) {
      set("need-" + name, { data: later[name] });
      delete later[name];
    }
    if (told.problem) {
      put("predictions", soft(told.problem));
      put("changes");
      return nothing();
    }
    put("predictions", ...told.runs.map((run) => made("table", { "data-run": run.run },
      made("caption", {}, run.run, made("span", { class: "soft" }, run.metric)),
      made("tbody", {}, ...run.tokens.map(([token, p, wide]) => made("tr", {}, made("td", { class: "mono" }, token), made("td", { class: "number" }, p),
        made("td", { class: "bar", "aria-hidden": "true" }, made("i", { style: "width: " + wide }))))))));
    if (!told.changes.length) {
      put("changes", soft("Nothing is changed. Select a cell and press a button above, or have a click do it."));
      return nothing();
    }
    const numbers = (found) => found.map((one) => made("td", { class: "number" }, one));
    const rows = told.changes.map((one, number) => made("tr", one.on ? {} : { class: "off" },
      made("td", {}, made("button", { class: "switch", role: "switch", "aria-checked": one.on, "aria-label": one.named, "data-do": "switch", "data-number": number }, one.on ? "on" : "off")),
      made("td", {}, one.named, ...(one.problem ? [made("p", { class: "problem" }, "Left out: " + one.problem)] : [])), ...numbers(one.numbers),
      made("td", {}, made("button", { class: "remove", title: "Remove", "aria-label": "Remove: " + one.named, "data-do": "remove", "data-number": number }, "×"))));
    if (told.together) rows.push(made("tr", { class: "together" }, made("td"), made("th", { scope: "row" }, "together"), ...numbers(told.together), made("td")));
    const heads = ["", "change", "moved", "share", "KL", ""].map((one) => made("th", { scope: "col" }, one));
    const focus = document.activeElement && document.activeElement.closest("#changes") ? document.activeElement.getAttribute("aria-label") : null;
    put("changes", made("div", { class: "wide" }, made("table", {}, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows))), soft(told.read));
    if (focus) [...document.querySelectorAll("#changes button")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
    return nothing();
  }
  function show_written(texts) {
    put("written", ...Object.entries(texts || {}).map(([which, text]) => made("div", { class: "tokens", "data-text": which }, made("b", {}, which),
      made("span", { class: "row" }, ...text.map((token, at) => made("span", { class: "token" + (texts.clean[at] === texts.corrupt[at] ? "" : " differs") }, token))))));
  }

  function markTokens() {
    if (!session) return;
    for (const token of document.querySelectorAll(".keys [data-position]")) {
      const own = Number(token.dataset.position) === session.state.position;
      token.classList.toggle("chosen", own);
      token.setAttribute("aria-pressed", String(own));
      token.tabIndex = own ? 0 : -1;
    }
    const at = session.state;
    put("attended-said", "Head " + at.layer + "." + at.head + " from position " + at.position + ": the darker, the more attention.");
  }
  function marked(sent) {
    session = sent;
    requestAnimationFrame(() => { markAll(); markTokens(); });
    return nothing();
  }

  let running = false, asked = 0, texts = "";
  function lived(told, need, go, seed, sent) {
    const from = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id.split(".")[0]);
    if (from.includes("live-seed")) send({ do: "set", name: "seed", value: (sent.state.seed + 1) % 2147483648 });
    if (from.includes("live-go")) {
      running = !running;
      if (running) ask(told && told.ask === texts ? told.steps : 0);
    }
    if (from.includes("need-live") && need && need.of !== texts) {
      texts = need.of;
      set("live-ask", { data: { steps: running ? 1 : 0, ask: texts, count: ++asked } });
    }
    const current = told && told.ask === texts;
    if (from.includes("live-told") && current) {
      if (told.problem || told.steps >= told.most) running = false;
      else if (running) setTimeout(() => running && ask(told.steps), 40);
    }
    if (from.includes("live-told")) show_written(current ? told.texts : {});
    const steps = current ? told.steps : 0;
    const said = current && told.problem ? told.problem : "Seed " + (sent ? sent.state.seed : 0) + (steps ? ", " + steps + " tokens" : "");
    return [said, running ? "Stop" : steps ? "Go on" : "Start"];
  }
  const ask = (steps) => set("live-ask", { data: { steps: steps + 4, ask: texts, count: ++asked } });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { needs, drawn, filled, changed, marked, lived, show_texts, show_runs, show_past, show_look } });

  // Clicks, keys and drags on what the server has made.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-save], .keys [data-position], #another");
    if (!button) return;
    if (button.id === "another") {
      const task = value("task");
      if (task) send({ do: "example", task, seed: ++examples });
    } else if (button.dataset.save) {
      save(button.dataset.view, button.dataset.save);
    } else if (button.dataset.do) {
      const event = { do: button.dataset.do };
      if (button.dataset.number) event.number = Number(button.dataset.number);
      if (["inject", "steer"].includes(event.do)) event.amount = dose();
      if (event.do === "steer") Object.assign(event, { toward: value("toward"), away: value("away") });
      send(event);
    } else {
      send({ do: "cell", how: button.closest("#tokens") ? how() : "select", amount: dose(), position: Number(button.dataset.position) });
    }
  });
  document.addEventListener("keydown", (event) => {
    const keys = event.target.closest && event.target.closest(".keys");
    if (!keys || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" || event.key.startsWith("Arrow")) {
      event.preventDefault();
      send({ do: "key", key: event.key, shift: event.shiftKey });
    } else if (event.key === "Enter" && !event.target.dataset.position) {
      send({ do: how() === "select" ? "select" : how(), amount: dose() });
    }
  });
  // A token keeps the focus where the selection goes.
  new MutationObserver(() => {
    const at = document.activeElement;
    if (at && at.dataset && at.dataset.position && !at.classList.contains("chosen")) {
      const own = at.closest(".row, #attended"), now = own && own.querySelector(".chosen");
      if (now) now.focus();
    }
  }).observe(document.documentElement, { subtree: true, attributes: true, attributeFilter: ["class"] });
  document.addEventListener("dragstart", (event) => {
    const token = event.target.closest && event.target.closest("[data-run='other'][data-position]");
    if (token) event.dataTransfer.setData("text/plain", token.dataset.position);
  });
  const target = (event) => event.target.closest && event.target.closest(".row[data-run='changed']");
  document.addEventListener("dragover", (event) => { if (target(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!target(event)) return;
    event.preventDefault();
    const position = Number(event.dataTransfer.getData("text/plain"));
    if (Number.isInteger(position)) send({ do: "drop", position });
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.id !== "open-attribution" || !session || !event.target.open) return;
    const at = session.state, key = JSON.stringify([at.model, at.clean, at.corrupt, at.answer, at.wrong]);
    if (remembered.attribution !== key) set("need-attribution", { data: { of: (remembered.attribution = key) } });
  }, true);

  function save(view, kind) {
    const one = shown[view];
    if (!one || !one.raw) return;
    if (kind === "data") {
      set("wanted", { data: { view, count: ++count } });
      return;
    }
    const { data, layout } = flat(one.raw.figure);
    const size = { width: layout.width || 700, height: layout.height || 450 };
    window.Plotly.downloadImage({ data, layout }, { format: kind, filename: view, scale: kind === "png" ? 2 : 1, ...size });
  }

  const scheme = () => document.documentElement.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light";
  let told = "";
  function tell() {
    if (!window.dash_clientside.set_props || !document.getElementById("views")) return;
    if (scheme() !== told) set("scheme", { data: (told = scheme()) });
  }
  new MutationObserver(tell).observe(document.documentElement, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });
  const begun = setInterval(() => { tell(); if (told) clearInterval(begun); }, 100);
})();
