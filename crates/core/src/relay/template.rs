//! Names of mirror files with the variables `{n}`, `{time}`, `{client}` and `{id}`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use zerosend_http::date;

use crate::error::{Code, Error, Result};

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    Time,
    Client,
    Id,
}

/// A file name with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// The values of the variables.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    /// `{n}`.
    pub number: u64,
    /// `{time}`.
    pub time: SystemTime,
    /// `{client}`; `None` for clients of Unix sockets.
    pub client: Option<SocketAddr>,
    /// `{id}`.
    pub id: &'a str,
}

impl Template {
    /// Parses a name. Fails with [`Code::InvalidArgument`] for an unknown variable.
    pub fn parse(name: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some(start) = rest.find('{') {
            let Some(length) = rest[start..].find('}') else { break };
            let part = match &rest[start + 1..start + length] {
                "n" => Part::Number,
                "time" => Part::Time,
                "client" => Part::Client,
                "id" => Part::Id,
                other => {
                    let message = format!(
                        "unknown variable {{{other}}} in file '{name}': use {{n}}, {{time}}, {{client}} or {{id}}"
                    );
                    return Err(Error::new(Code::InvalidArgument, message));
                }
            };
            parts.push(Part::Text(rest[..start].to_owned()));
            parts.push(part);
            rest = &rest[start + length + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The name if it has no variables.
    pub fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// Whether it has `{n}`.
    pub fn is_numbered(&self) -> bool {
        self.0.contains(&Part::Number)
    }

    /// The name with values for its variables.
    pub fn expand(&self, values: &Values<'_>) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Number => name.push_str(&values.number.to_string()),
                Part::Time => {
                    name.extend(date::format_iso8601(values.time).chars().filter(|letter| !matches!(letter, '-' | ':')))
                }
                Part::Client => match values.client {
                    // scp and rsync parse a name with a colon as that of a host.
                    Some(address) => {
                        let ip = address.ip().to_canonical().to_string().replace(':', "-");
                        name.push_str(&format!("{ip}_{}", address.port()));
                    }
                    None => name.push_str("unix"),
                },
                Part::Id => name.push_str(values.id),
            }
        }
        name
    }

    /// The directory of the files, as far as its path has no variables.
    pub fn directory(&self) -> &Path {
        let Some(Part::Text(before)) = self.0.first() else { return Path::new(".") };
        Path::new(match before.rfind('/') {
            Some(0) => "/",
            Some(end) => &before[..end],
            None => ".",
        })
    }

    /// One more than the highest number in the names of existing files; 1 if there is none, or if the number is not the only
    /// variable and in the last part of the path. Reads the directory.
    pub fn first_free(&self) -> u64 {
        let [Part::Text(before), Part::Number, Part::Text(after)] = self.0.as_slice() else { return 1 };
        if after.contains('/') {
            return 1;
        }
        let prefix = &before[before.rfind('/').map_or(0, |end| end + 1)..];
        let Ok(entries) = std::fs::read_dir(self.directory()) else { return 1 };
        let number = |name: &str| {
            let digits = name.strip_prefix(prefix)?.strip_suffix(after.as_str())?;
            let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|number| canonical && *number < MAX_NUMBER)
        };
        let highest = entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).max();
        highest.map_or(1, |number| number + 1)
    }
}

/// Numbers from here on are ignored: their successors do not fit a JavaScript number.
const MAX_NUMBER: u64 = 1 << 52;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn values(client: Option<&str>) -> Values<'static> {
        let time = UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        Values { number: 7, time, client: client.map(|client| client.parse().expect("an address")), id: "ab-7" }
    }

    #[test]
    fn variables_are_replaced_by_their_values() {
        let expand = |name, client| Template::parse(name).expect("a name").expand(&values(client));
        assert_eq!(expand("m-{n}", None), "m-7");
        assert_eq!(expand("{n}{n}/{id}.log", None), "77/ab-7.log");
        assert_eq!(expand("a{time}b", None), "a20240229T123456.789Zb");
        assert_eq!(expand("{client}", Some("127.0.0.1:80")), "127.0.0.1_80");
        assert_eq!(expand("{client}", Some("[::ffff:10.0.0.1]:80")), "10.0.0.1_80");
        assert_eq!(expand("{client}", Some("[2001:db8::1]:80")), "2001-db8--1_80");
        assert_eq!(expand("{client}", None), "unix");
        assert_eq!(expand("open{brace", None), "open{brace");
        assert_eq!(Template::parse("plain").expect("a name").plain(), Some("plain"));
        assert_eq!(Template::parse("a{n}").expect("a name").plain(), None);
        let error = Template::parse("a-{pid}").expect_err("unknown");
        assert!(error.to_string().contains("unknown variable {pid} in file 'a-{pid}': use {n}, {time}"), "{error}");
    }

    #[test]
    fn the_first_free_number_follows_the_highest_existing_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = |last: &str| Template::parse(&format!("{}/{last}", directory.path().display())).expect("a name");
        assert_eq!(name("m-{n}.log").first_free(), 1);
        for taken in ["m-2.log", "m-10.log", "m-0011.log", "m-x.log", "m-99", "m-18446744073709551615.log", "m-+5.log"]
        {
            std::fs::write(directory.path().join(taken), "").expect("a file");
        }
        assert_eq!(name("m-{n}.log").first_free(), 11);
        assert_eq!(name("m-{n}").first_free(), 100);
        assert_eq!(name("missing/m-{n}").first_free(), 1);
    }
}
