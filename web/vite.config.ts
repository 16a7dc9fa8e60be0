import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// names without hashes: the built files are in git, and CI compares them with a build of its own
export default defineConfig({
  base: "/page/",
  plugins: [react(), tailwindcss()],
  build: {
    outDir: "../src/valentina_pipeline/serving/api/page",
    emptyOutDir: true,
    license: { fileName: "LICENSES.md" }, // of what is bundled: its terms ask for it
    modulePreload: { polyfill: false },
    rolldownOptions: { output: { entryFileNames: "page.js", assetFileNames: "page[extname]" } },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8800" } },
});
