
(() => {
  const pause = document.getElementById("pause"), told = document.getElementById("told");
  let paused = false, silent = 0;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Refresh again" : "Stop refreshing";
  });
  const refresh = async () => {
    if (paused || document.hidden) return;
    try {
      // Not relative to the page: where its address holds a password, such a request is refused.
      const self = location.origin + location.pathname + location.search;
      const answer = await fetch(self, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const other = fresh.getElementById(part.id);
        if (!other || other.innerHTML === part.innerHTML || part.contains(document.activeElement)) continue;
        const left = part.querySelector(".scroll")?.scrollLeft;
        part.replaceChildren(...other.childNodes);
        if (left) part.querySelector(".scroll").scrollLeft = left;
      }
      document.title = fresh.title;
      if (silent) told.textContent = "The daemon answers again.";
      silent = 0;
    } catch {
      silent += 1;
      if (silent === 2) told.textContent = "The daemon does not answer: this page is old.";
    }
  };
  setInterval(refresh, 10000);
  document.addEventListener("visibilitychange", refresh);
})();
