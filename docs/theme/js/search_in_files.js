// Search in pages that were opened as files. There a browser neither starts a worker
// nor reads JSON, which the script of the search needs; but it runs scripts. So this
// takes the worker's place, before that script asks for one: it answers the same
// messages, with an index that is a script, too, and is loaded with the first query.
if (location.protocol === "file:") {
  const loaded = (path) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${base_url}/${path}`;
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });

  const indexed = async () => {
    await Promise.all([loaded("search/lunr.js"), loaded("search/search_index.js")]);
    const {config, docs} = window.searchIndex;
    lunr.tokenizer.separator = new RegExp(config.separator);
    const pages = new Map(docs.map((page) => [page.location, page]));
    const index = lunr(function () {
      this.ref("location");
      this.field("title");
      this.field("text");
      docs.forEach((page) => this.add(page));
    });
    return (query) => index.search(query).map(({ref}) => {
      const {location, title, text} = pages.get(ref);
      return {location, title, summary: text.substring(0, 200)};
    });
  };

  // The box of the search is after the scripts, in the page.
  const parsed = new Promise((resolve) => {
    document.addEventListener("DOMContentLoaded", resolve);
  });
  let search = null;
  let newest = 0;
  window.Worker = class {
    async postMessage({init, query}) {
      if (init) {
        await parsed;
        this.onmessage({data: {config: {min_search_length: 3}}});
        this.onmessage({data: {allowSearch: true}});
        return;
      }
      const number = ++newest;
      const results = (await (search ??= indexed()))(query);
      if (number === newest) this.onmessage({data: {results}});
    }
  };
}
