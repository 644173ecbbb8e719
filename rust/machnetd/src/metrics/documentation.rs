//! The tables of docs/metrics.md are made from those of the program.

use std::fmt::Write;
use std::path::Path;

use machnet_wire::sample::{Definition, Kind, Unit};

use super::text::{FAMILIES, name};

#[test]
fn the_documentation_has_every_counter() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md");
    let (before, rest) = page.split_once(BEGIN).expect("where the tables begin");
    let (_, after) = rest.split_once(END).expect("where the tables end");
    let made = format!("{before}{BEGIN}{}{END}{after}", tables());
    if std::env::var_os("MACHNET_WRITE").is_some() {
        std::fs::write(&path, made).expect("docs/metrics.md can be written");
    } else {
        assert!(
            page == made,
            "docs/metrics.md is not as the counters are declared; MACHNET_WRITE=1 cargo test -p machnetd documentation"
        );
    }
}

fn tables() -> String {
    let mut out = String::new();
    for family in &FAMILIES {
        let (title, of) = match family.prefix {
            "machnet_engine_" => ("Engines", "Each engine; label `engine`, its number."),
            "machnet_flow_" => (
                "Flows",
                "The flows (connections) of each engine together, those that are over included; label `engine`. At most a second old.",
            ),
            "machnet_queue_" => (
                "Queues",
                "Each engine's queue pair of the NIC, as the engine counts; label `engine`. At most a second old.",
            ),
            _ => ("Port", "The NIC, all queues together, as its driver or the kernel counts; no label."),
        };
        let _ = writeln!(out, "\n## {title}: `{}...`\n\n{of}\n", family.prefix);
        let _ = writeln!(out, "| metric | kind | counts |\n|---|---|---|");
        for of in family.table {
            let name = name(family.prefix, of);
            let _ = writeln!(out, "| `{name}` | {} | {} |", kind(of), of.help.replace('|', "\\|"));
        }
    }
    out.push('\n');
    out
}

fn kind(of: &Definition) -> String {
    let kind = match of.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    match of.unit {
        Unit::Count => kind.to_owned(),
        Unit::Bytes => format!("{kind}, bytes"),
        Unit::Nanoseconds => format!("{kind}, seconds"),
    }
}

const BEGIN: &str = "<!-- made from the program's tables: begin -->\n";
const END: &str = "<!-- end -->\n";
