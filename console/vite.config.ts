import { defineConfig } from "vite";

// Where `npm run dev` finds a running service.
const service = process.env.CAPCONDUIT_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  base: "/console/",
  build: {
    // scripts/build-console empties it: a file there is tracked.
    emptyOutDir: false,
    target: "es2022",
    // The policy that the page is served under allows no data in addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // Requests keep the page's own host, which the API compares with their origin.
    proxy: { "/api": { target: service, changeOrigin: false } },
  },
});
