import "./style/index.css";

import { render } from "preact";

import { App } from "./app";
import { resume } from "./session";
import { applyTheme } from "./theme";

applyTheme();
const place = document.getElementById("console");
if (place) render(<App />, place);
void resume();
