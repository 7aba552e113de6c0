"use strict";
(() => {
  const root = document.documentElement;

  const speak = (language) => {
    root.lang = language;
    // The title and the choices of a list take no elements: their words are changed instead of hidden.
    for (const plain of document.querySelectorAll("[data-en]")) {
      plain.textContent = language === "zh-CN" ? plain.dataset.zh : plain.dataset.en;
    }
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
  };
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => speak(button.dataset.language));
  }

  const wanted = { tag: "", task: "", fate: "", finding: "", pair: "" };
  const cases = [...document.querySelectorAll(".case")].map((card) => ({
    card,
    task: card.dataset.task,
    pair: card.dataset.pair,
    tags: JSON.parse(card.dataset.tag),
    findings: JSON.parse(card.dataset.finding),
  }));
  const suits = (key, value) => !wanted[key] || wanted[key] === value;
  const filter = () => {
    let count = 0;
    for (const one of cases) {
      // A finding and what became of it have to be said of one and the same finding.
      const found = (!wanted.finding && !wanted.fate) || one.findings.some(([name, fate]) => suits("finding", name) && suits("fate", fate));
      const fits = found && suits("task", one.task) && suits("pair", one.pair) && (!wanted.tag || one.tags.includes(wanted.tag));
      one.card.hidden = !fits;
      count += fits ? 1 : 0;
    }
    document.getElementById("count").textContent = String(count);
    document.getElementById("none").hidden = count > 0;
  };
  for (const list of document.querySelectorAll("select[data-filter]")) {
    list.addEventListener("change", () => {
      wanted[list.dataset.filter] = list.value;
      filter();
    });
  }
  for (const button of document.querySelectorAll("button[data-filter]")) {
    button.addEventListener("click", () => {
      wanted[button.dataset.filter] = button.dataset.value;
      for (const other of document.querySelectorAll(`button[data-filter="${button.dataset.filter}"]`)) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      filter();
    });
  }

  // Paper has nothing to click on: short folds print open. Long ones (prompts, tables of all measures) print as they are.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not(.raw, .task)")) details.open = true;
  });
})();
