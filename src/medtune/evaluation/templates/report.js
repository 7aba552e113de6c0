"use strict";
(() => {
  const root = document.documentElement;

  const speak = (language) => {
    root.lang = language;
    const title = document.querySelector("title");
    document.title = language === "zh-CN" ? title.dataset.zh : title.dataset.en;
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
  };
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => speak(button.dataset.language));
  }

  const wanted = { tag: "", task: "", finding: "", pair: "" };
  const cases = [...document.querySelectorAll(".case")];
  const has = (card, key) => !wanted[key] || JSON.parse(card.dataset[key]).includes(wanted[key]);
  const is = (card, key) => !wanted[key] || card.dataset[key] === wanted[key];
  const filter = () => {
    let count = 0;
    for (const card of cases) {
      const fits = has(card, "tag") && has(card, "finding") && is(card, "task") && is(card, "pair");
      card.hidden = !fits;
      count += fits ? 1 : 0;
    }
    document.getElementById("count").textContent = String(count);
    document.getElementById("none").hidden = count > 0;
  };
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => {
      wanted[button.dataset.filter] = button.dataset.value;
      for (const other of document.querySelectorAll(`[data-filter="${button.dataset.filter}"]`)) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      filter();
    });
  }

  // A closed <details> prints closed: paper has nothing to click on.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not(.raw)")) details.open = true;
  });
})();
