// Keys, focus, toasts, times and files. All of the desk works without it.
(() => {
  "use strict";

  const root = document.documentElement;
  const TYPING = "input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]";
  const shown = (element) => element.getClientRects().length > 0 && !element.disabled;

  // The reader's own clock; what the server writes is UTC.
  function tellTimes(part) {
    const told = new Intl.DateTimeFormat(root.lang, { dateStyle: "medium", timeStyle: "short" });
    for (const time of part.querySelectorAll("time[data-moment]")) {
      time.textContent = told.format(new Date(time.dateTime));
    }
  }

  // A live region is read aloud when it changes, not when it arrives with its content.
  function readToast() {
    const region = document.getElementById("toasts");
    const toast = region && region.querySelector(".toast");
    if (!toast) return;
    toast.remove();
    setTimeout(() => region.append(toast), 50);
  }

  // A toast is for the moment after: a page that is loaded again, or sent to somebody, does not say it again.
  function forgetDone() {
    const address = new URL(location.href);
    if (!address.searchParams.has("done")) return;
    address.searchParams.delete("done");
    address.searchParams.delete("of");
    history.replaceState(history.state, "", address);
  }

  function settle(part) {
    tellTimes(part);
    const help = document.getElementById("help-button");
    if (help) help.hidden = false;
  }

  function arrive() {
    settle(document);
    readToast();
    forgetDone();
    const focused = document.querySelector("[data-focus], [autofocus]") || document.querySelector("main h1");
    if (focused && !location.hash) focused.focus({ preventScroll: true });
    // On a phone, the pages are a row to be moved sideways.
    const current = document.querySelector("body > header nav [aria-current]");
    if (current) {
      const row = current.parentElement;
      row.scrollLeft = current.offsetLeft - row.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
    }
  }

  // Up and down the rows of a list, as far as there are any.
  function step(by) {
    const rows = [...document.querySelectorAll("[data-rows] [data-row]")];
    if (!rows.length) return false;
    const at = rows.indexOf(document.activeElement);
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
    return true;
  }

  function press(element) {
    if (element.matches("input")) {
      element.focus();
      element.select();
    } else {
      element.click();
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.matches(TYPING)) {
      event.target.blur();
      return;
    }
    if (event.ctrlKey && event.key === "Enter") {
      const button = document.querySelector("[data-modifier=ctrl]");
      if (button) {
        event.preventDefault();
        button.click();
      }
      return;
    }
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.repeat && !"jk".includes(event.key)) return;
    if (root.dataset.keys === "off" || event.target.closest(TYPING) || document.querySelector("dialog[open]")) return;
    const found = [...document.querySelectorAll("[data-key]:not([data-modifier])")].find(
      (one) => one.dataset.key === event.key && (shown(one) || one.dataset.opens),
    );
    if (found) {
      event.preventDefault();
      press(found);
    } else if (event.key === "j" || event.key === "k") {
      if (step(event.key === "j" ? 1 : -1)) event.preventDefault();
    }
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // One decision at a time: what was pressed once is not sent twice, and no late search takes its place. Only here can a
  // request be held back before it ends the one that is under way.
  document.addEventListener("htmx:confirm", (event) => {
    if (document.body.hasAttribute("aria-busy")) event.preventDefault();
  });
  // What a search is about to replace takes no ticks meanwhile: they would be gone with it.
  const held = (element) => document.getElementById(element.dataset.holds);
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.boosted) document.body.setAttribute("aria-busy", "true");
    if (held(event.target)) held(event.target).inert = true;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.boosted) document.body.removeAttribute("aria-busy");
    if (held(event.target)) held(event.target).inert = false;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.boosted && event.target === document.body) {
      window.scrollTo(0, 0);
      arrive();
    } else {
      settle(event.target);
    }
  });

  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      const upload = document.querySelector(".upload");
      if (!upload || !event.dataTransfer || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      upload.classList.toggle("over", name === "dragover");
      if (name === "drop") upload.querySelector("[data-drop]").files = event.dataTransfer.files;
    });
  }

  arrive();
})();
