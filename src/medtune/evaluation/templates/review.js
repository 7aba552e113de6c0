"use strict";
(() => {
  const root = document.documentElement;
  const review = document.body.dataset.review;
  const store = `medtune-review-sittings-${review}`;
  const cards = [...document.querySelectorAll(".case")];
  const reader = document.getElementById("reader");
  const notice = (name, shown) => { document.getElementById(name).hidden = !shown; };
  let at = 0;
  let unsaved = false;
  // Several readers may share a browser, and one must not begin with the marks of another: each sitting has a place of its own.
  let sitting = String(Date.now());

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

  const side = (card, name) => ({
    errors: [...card.querySelectorAll(`[data-error][data-side="${name}"]:checked`)].map((input) => input.dataset.error),
    severity: card.querySelector(`[data-severity][data-side="${name}"]:checked`)?.dataset.severity ?? null,
  });
  const marksOf = (card) => ({
    preference: card.querySelector("[data-preference]:checked")?.dataset.preference ?? null,
    a: side(card, "a"),
    b: side(card, "b"),
    remark: card.querySelector("textarea").value,
  });
  const touched = (marks) =>
    marks.preference !== null || marks.remark !== "" || [marks.a, marks.b].some((one) => one.errors.length > 0 || one.severity !== null);
  const collect = () => {
    const cases = {};
    for (const card of cards) {
      const marks = marksOf(card);
      if (touched(marks)) cases[card.dataset.case] = marks;
    }
    return { format: "medtune-review", version: 1, review, reader: reader.value.trim(), cases };
  };
  const apply = (found) => {
    reader.value = typeof found.reader === "string" ? found.reader : "";
    for (const card of cards) {
      const marks = found.cases?.[card.dataset.case];
      for (const input of card.querySelectorAll("input")) {
        const own = marks?.[input.dataset.side];
        if (input.dataset.preference) input.checked = marks?.preference === input.dataset.preference;
        else if (input.dataset.error) input.checked = Boolean(own?.errors?.includes(input.dataset.error));
        else input.checked = own?.severity === input.dataset.severity;
      }
      card.querySelector("textarea").value = typeof marks?.remark === "string" ? marks.remark : "";
    }
  };

  const count = () => {
    document.getElementById("done").textContent = String(cards.filter((card) => card.querySelector("[data-preference]:checked")).length);
  };
  const kept = () => JSON.parse(localStorage.getItem(store)) ?? {};
  const keep = () => {
    unsaved = true;
    notice("whose", false);
    count();
    try {
      localStorage.setItem(store, JSON.stringify({ ...kept(), [sitting]: { ...collect(), at } }));
    } catch {
      notice("no-storage", true);
    }
  };
  const show = (place) => {
    at = Math.min(Math.max(place, 0), cards.length - 1);
    cards.forEach((card, number) => { card.hidden = number !== at; });
    if (at > 0) document.getElementById("how").open = false;
    scrollTo(0, 0);
  };

  const save = () => {
    notice("need-reader", reader.value.trim() === "");
    if (reader.value.trim() === "") {
      reader.focus();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(collect(), null, 2) + "\n"], { type: "application/json" }));
    link.download = `review-${review}-${reader.value.trim().replace(/[^\p{L}\p{N}-]+/gu, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
  };
  document.getElementById("save").addEventListener("click", save);
  document.getElementById("open").addEventListener("change", async (event) => {
    let found = null;
    try {
      found = JSON.parse(await event.target.files[0].text());
    } catch {
      found = null;
    }
    const fits = found !== null && found.format === "medtune-review" && found.review === review;
    notice("not-this", !fits);
    if (fits) {
      apply(found);
      keep();
      unsaved = false;
    }
    event.target.value = "";
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "open") keep();
    if (event.target === reader) notice("need-reader", false);
  });
  for (const button of document.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => { show(at + Number(button.dataset.move)); keep(); });
  }
  for (const picture of document.querySelectorAll(".picture")) {
    picture.addEventListener("click", () => picture.classList.toggle("large"));
  }

  addEventListener("keydown", (event) => {
    const where = event.target;
    const writing = where.tagName === "TEXTAREA" || where.id === "reader" || where.id === "open";
    if (event.key === "Escape") {
      for (const picture of document.querySelectorAll(".picture.large")) picture.classList.remove("large");
      where.blur();
    }
    if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
    const card = cards[at];
    const key = event.key.toLowerCase();
    const choose = { a: "a", b: "b", t: "tie" }[key];
    if (choose) {
      card.querySelector(`[data-preference="${choose}"]`).checked = true;
    } else if (/^[0-9]$/.test(key)) {
      const number = (Number(key) + 9) % 10;
      const box = card.querySelectorAll(`[data-error][data-side="${number < 5 ? "a" : "b"}"]`)[number % 5];
      box.checked = !box.checked;
    } else if (key === "arrowright" || key === "arrowleft") {
      show(at + (key === "arrowright" ? 1 : -1));
    } else if (key === "s") {
      event.preventDefault(); // or the letter would be typed into the field that save() moves to
      save();
      return;
    } else {
      return;
    }
    event.preventDefault();
    keep();
  });
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

  const goOn = (name, marks) => {
    sitting = name;
    apply(marks);
    notice("whose", false);
    count();
    show(marks.at ?? 0);
  };
  try {
    for (const [name, marks] of Object.entries(kept())) {
      const button = document.createElement("button");
      const decided = Object.values(marks.cases).filter((one) => one.preference !== null).length;
      button.type = "button";
      button.textContent = `${marks.reader || "?"} (${decided} / ${cards.length})`;
      button.addEventListener("click", () => goOn(name, marks));
      document.getElementById("sittings").append(" ", button);
      notice("whose", true);
    }
  } catch {
    notice("no-storage", true);
  }
  count();
  show(0);
})();
