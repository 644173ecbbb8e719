//! A question at the control socket: one JSON object, read strictly, so that a field that means nothing here is not silently ignored.

use std::fmt;

use log::LevelFilter;
use machnet_engine::ConnectionId;
use machnet_host::Question;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use toml::Value as Setting;

use crate::config::level;

/// What somebody wants, who has connected to the control socket and not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The counters.
    Stats,
    /// Settings and NIC.
    About,
    /// Whether the engines are alive.
    Health,
    /// Something that engines know.
    Ask(Question),
    /// That a channel ends.
    Drain(u64),
    /// That more or less is logged.
    Log(LevelFilter),
}

/// Why a question is not answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The question's name, where it could be read.
    pub query: Option<String>,
    /// One sentence.
    pub error: String,
}

impl Request {
    /// The question's name.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Stats => "stats",
            Request::About => "about",
            Request::Health => "health",
            Request::Ask(Question::Channels) => "channels",
            Request::Ask(Question::Listeners) => "listeners",
            Request::Ask(Question::Connections { .. }) => "connections",
            Request::Ask(Question::Connection { .. }) => "connection",
            Request::Ask(Question::Peers) => "peers",
            Request::Drain(_) => "drain",
            Request::Log(_) => "log",
        }
    }

    /// Whether it changes something, which is not for everybody who may attach.
    pub fn is_order(&self) -> bool {
        matches!(self, Request::Drain(_) | Request::Log(_))
    }

    /// Reads a packet.
    pub fn read(packet: &[u8]) -> Result<Request, Refusal> {
        let unread = |error| Refusal { query: None, error };
        if packet.len() > LONGEST {
            let error =
                format!("the question has more than {LONGEST} bytes, the most; ask one thing at a time");
            return Err(unread(error));
        }
        let Object(mut fields) = serde_json::from_slice(packet).map_err(|error| {
            unread(format!("the question is no JSON object: {error}; send one such as {EXAMPLE}"))
        })?;
        let query = match fields.remove("query") {
            Some(Value::String(query)) => query,
            Some(other) => {
                return Err(unread(format!("query = {}: not a text; use {NAMES}", short(&other))));
            }
            None => return Err(unread(format!("the question has no field \"query\"; use {NAMES}"))),
        };
        let mut fields = Fields { fields, taken: Vec::new() };
        let read = fields.version().and_then(|()| fields.request(&query)).and_then(|request| {
            fields.end(&query)?;
            Ok(request)
        });
        read.map_err(|error| Refusal { query: Some(query.chars().take(SHOWN).collect()), error })
    }
}

/// The fields of a JSON object, in which none is there twice: of two wishes one would be forgotten.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Object, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        let name = short(&name.into());
                        return Err(A::Error::custom(format_args!("the field {name} is there twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Object(fields))
            }
        }

        from.deserialize_map(Once)
    }
}

/// What was not read yet, and the names of what was.
struct Fields {
    fields: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Fields {
    fn version(&mut self) -> Result<(), String> {
        match self.fields.remove("version") {
            Some(Value::Number(version)) if version.as_u64() == Some(VERSION) => Ok(()),
            Some(other) => Err(format!(
                "version = {}: this machnetd speaks version {VERSION}; use the machnet of its release",
                short(&other)
            )),
            None => {
                Err(format!("the question has no field \"version\"; this machnetd speaks version {VERSION}"))
            }
        }
    }

    fn request(&mut self, query: &str) -> Result<Request, String> {
        Ok(match query {
            "stats" => Request::Stats,
            "about" => Request::About,
            "health" => Request::Health,
            "channels" => Request::Ask(Question::Channels),
            "listeners" => Request::Ask(Question::Listeners),
            "connections" => {
                Request::Ask(Question::Connections { channel: self.number("channel", u64::MAX)? })
            }
            "connection" => {
                let engine = self.number("engine", u16::MAX.into())?.ok_or_else(|| missing("engine"))?;
                let connection = self.connection()?;
                Request::Ask(Question::Connection { engine: engine as u16, connection })
            }
            "peers" => Request::Ask(Question::Peers),
            "drain" => Request::Drain(self.number("channel", u64::MAX)?.ok_or_else(|| missing("channel"))?),
            "log" => Request::Log(self.level()?),
            other => return Err(format!("unknown query {}; use {NAMES}", short(&other.into()))),
        })
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.taken.push(name);
        self.fields.remove(name)
    }

    fn number(&mut self, name: &'static str, most: u64) -> Result<Option<u64>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if number <= most => Ok(Some(number)),
            _ => Err(format!("{name} = {}: not a whole number from 0 to {most}", short(&value))),
        }
    }

    fn connection(&mut self) -> Result<ConnectionId, String> {
        let value = self.take("connection").ok_or_else(|| missing("connection"))?;
        value.as_str().and_then(|name| name.parse().ok()).ok_or_else(|| {
            let shown = short(&value);
            format!("connection = {shown}: not the name of a connection; use one that \"connections\" lists")
        })
    }

    fn level(&mut self) -> Result<LevelFilter, String> {
        let value = self.take("level").ok_or_else(|| missing("level"))?;
        let text = value.as_str().unwrap_or_default();
        level(&Setting::String(text.to_owned()))
            .map_err(|reason| format!("level = {}: {reason}", short(&value)))
    }

    /// Nothing is left over.
    fn end(&self, query: &str) -> Result<(), String> {
        let Some(name) = self.fields.keys().next() else { return Ok(()) };
        let takes = match &self.taken[..] {
            [] => "no others than \"version\" and \"query\"".to_owned(),
            names => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and "),
        };
        Err(format!("unknown field {}; {query} takes {takes}", short(&name.as_str().into())))
    }
}

fn missing(name: &str) -> String {
    format!("the field {name:?} is missing")
}

/// A value as text, not longer than a line: it is somebody else's.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain("...".chars()).collect() }
}

/// Of the questions and answers.
pub const VERSION: u64 = 1;
/// Bytes of a question.
pub const LONGEST: usize = 4096;
/// Characters of a value that are repeated in an answer.
const SHOWN: usize = 64;
const EXAMPLE: &str = r#"{"version":1,"query":"stats"}"#;
const NAMES: &str = r#""stats", "about", "health", "channels", "listeners", "connections", "connection", "peers", "drain" or "log" (docs/control.md)"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packet: &str) -> Result<Request, String> {
        Request::read(packet.as_bytes()).map_err(|refusal| refusal.error)
    }

    #[test]
    fn every_question_is_read() {
        let connection = "7-1".parse().unwrap();
        for (packet, request) in [
            (r#"{"version":1,"query":"stats"}"#, Request::Stats),
            (r#"{"version":1,"query":"about"}"#, Request::About),
            (r#"{"version":1,"query":"health"}"#, Request::Health),
            (r#"{"query":"channels","version":1}"#, Request::Ask(Question::Channels)),
            (r#"{"version":1,"query":"connections"}"#, Request::Ask(Question::Connections { channel: None })),
            (
                r#"{"version":1,"query":"connections","channel":18446744073709551615}"#,
                Request::Ask(Question::Connections { channel: Some(u64::MAX) }),
            ),
            (
                r#"{"version":1,"query":"connection","engine":3,"connection":"7-1"}"#,
                Request::Ask(Question::Connection { engine: 3, connection }),
            ),
            (r#" {"version":1, "query":"peers"} "#, Request::Ask(Question::Peers)),
            (r#"{"version":1,"query":"drain","channel":0}"#, Request::Drain(0)),
            (r#"{"version":1,"query":"log","level":"debug"}"#, Request::Log(LevelFilter::Debug)),
        ] {
            assert_eq!(read(packet), Ok(request), "{packet}");
            assert!(packet.contains(&format!("{:?}", request.name())), "{packet}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_one_sentence_with_what_is_right() {
        let long = format!(r#"{{"version":1,"query":"{}"}}"#, "x".repeat(1000));
        for (packet, sentence) in [
            ("{", "the question is no JSON object: EOF while parsing an object"),
            (
                r#"{"version":1,"query":"drain","channel":1,"channel":2}"#,
                "the question is no JSON object: the field \"channel\" is there twice",
            ),
            ("{}", "the question has no field \"query\"; use \"stats\""),
            (r#"{"version":1}"#, "the question has no field \"query\""),
            (r#"{"version":1,"query":7}"#, "query = 7: not a text"),
            (r#"{"query":"stats"}"#, "the question has no field \"version\"; this machnetd speaks version 1"),
            (r#"{"version":2,"query":"stats"}"#, "version = 2: this machnetd speaks version 1"),
            (r#"{"version":"1","query":"stats"}"#, "version = \"1\": this machnetd speaks version 1"),
            (r#"{"version":1,"query":"stat"}"#, "unknown query \"stat\"; use \"stats\""),
            (&long, "unknown query \"xxxxx"),
            (
                r#"{"version":1,"query":"stats","channel":1}"#,
                "unknown field \"channel\"; stats takes no others",
            ),
            (
                r#"{"version":1,"query":"connections","chanel":1}"#,
                "unknown field \"chanel\"; connections takes \"channel\"",
            ),
            (
                r#"{"version":1,"query":"connections","channel":-1}"#,
                "channel = -1: not a whole number from 0 to",
            ),
            (r#"{"version":1,"query":"drain"}"#, "the field \"channel\" is missing"),
            (r#"{"version":1,"query":"drain","channel":1.5}"#, "channel = 1.5: not a whole number"),
            (r#"{"version":1,"query":"connection","connection":"0-0"}"#, "the field \"engine\" is missing"),
            (r#"{"version":1,"query":"connection","engine":65536}"#, "engine = 65536: not a whole number"),
            (
                r#"{"version":1,"query":"connection","engine":0,"connection":"x"}"#,
                "connection = \"x\": not the name of a connection",
            ),
            (r#"{"version":1,"query":"log","level":"loud"}"#, "level = \"loud\": unknown level; use \"off\""),
            (r#"{"version":1,"query":"log","level":3}"#, "level = 3: unknown level"),
        ] {
            let error = read(packet).expect_err(packet);
            assert!(error.starts_with(sentence), "{packet}: {error}");
            assert!(error.len() < 300 && !error.contains('\n'), "{error}");
        }
        let refusal = Request::read(long.as_bytes()).unwrap_err();
        assert_eq!(refusal.query.map(|name| name.len()), Some(SHOWN), "nor is its name repeated whole");
        let error = read(&format!("{{{}", " ".repeat(LONGEST))).unwrap_err();
        assert!(error.starts_with("the question has more than 4096 bytes"), "{error}");
        let deep = format!("{{\"a\":{}", "[".repeat(4000));
        assert!(read(&deep).is_err());
    }
}
