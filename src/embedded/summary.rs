//! What a person sees when everything runs.

use std::io::IsTerminal;
use std::path::Path;

use super::{Options, Profile};

/// Says where everything is, and how to make the first call.
pub fn print(options: &Options, data: &Path, first_password: Option<&str>) {
    let style = Style { on: std::io::stdout().is_terminal() };
    let http = format!("http://127.0.0.1:{}", options.http_port);
    let password_file = data.join("admin-password");
    println!();
    println!("  {}", style.strong("CapConduit is ready"));
    println!();
    let row =
        |name: &str, value: String| println!("  {}  {value}", style.faint(&format!("{name:<11}")));
    row("Console", format!("{http}/console"));
    row("API", format!("{http}/api"));
    row("Swagger UI", format!("{http}/docs/admin   {http}/docs/seller"));
    row(
        "SIP",
        format!(
            "sip:NUMBER@{}:{}  (UDP; calls from 127.0.0.0/8 are taken)",
            options.sip_address, options.sip_port
        ),
    );
    row("Data, logs", data.display().to_string());
    match first_password {
        Some(password) => {
            row("Sign in", format!("admin  {}", style.strong(password)));
            row("", format!("shown once; also in {}", password_file.display()));
        }
        None if !password_file.exists() => {
            row("Sign in", "with an account of this database".to_owned());
        }
        None => row(
            "Sign in",
            format!("admin, password in {} unless you changed it", password_file.display()),
        ),
    }
    println!();
    println!(
        "  First call:  {} in another terminal, or a softphone: README, \"A first call\"",
        demo(options)
    );
    println!("  Ctrl-C ends everything that was started here.");
    println!();
}

/// The command that shows the demo on this very service.
fn demo(options: &Options) -> String {
    let mut command = "make demo".to_owned();
    let data = options.data.display().to_string();
    if options.profile == Profile::Production {
        command += " PROFILE=production";
    }
    let data_by_default = match options.profile {
        Profile::Embedded => ".run",
        Profile::Production => ".run-production",
    };
    for (name, value, default) in [
        ("DATA", data, data_by_default),
        ("HTTP_PORT", options.http_port.to_string(), "8080"),
        ("SIP_PORT", options.sip_port.to_string(), "5060"),
    ] {
        if value.contains(' ') {
            command += &format!(" {name}='{value}'");
        } else if value != default {
            command += &format!(" {name}={value}");
        }
    }
    command
}

struct Style {
    on: bool,
}

impl Style {
    fn strong(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
