//! Conversion of single settings from and to TOML values and text, and checks of single values.
//! Messages never contain a secret.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Value;

use super::public_url::PublicUrl;
use super::suggest::nearest;
use super::types::{
    AuthMode, Durability, LogFormat, OnIdle, RegistrationPolicy, Sandbox, Secret, WorkerStart,
};

/// A type of a setting.
pub(super) trait Setting: Sized {
    /// Describes the accepted values.
    fn kind() -> String;
    /// Reads a TOML value.
    fn read(value: &Value) -> Result<Self, String>;
    /// Reads the text of a variable or flag.
    fn read_text(text: &str) -> Result<Self, String>;
    /// Returns the TOML value; secrets are masked.
    fn write(&self) -> Value;
}

fn expected<T: Setting>(found: impl Display) -> String {
    format!("expected {}, found {found}", T::kind())
}

/// Formats a value for an error message.
fn displayed(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {text:?}"),
        Value::Integer(number) => format!("{number}"),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(flag) => format!("{flag}"),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => {$(
        impl Setting for $type {
            fn kind() -> String {
                // TOML integers end at 2^63 - 1.
                let greatest = i64::try_from(<$type>::MAX).unwrap_or(i64::MAX);
                match greatest {
                    i64::MAX => "a whole number, 0 or more".to_owned(),
                    _ => format!("a whole number from 0 to {greatest}"),
                }
            }
            fn read(value: &Value) -> Result<Self, String> {
                let number = value.as_integer().and_then(|number| Self::try_from(number).ok());
                number.ok_or_else(|| expected::<Self>(displayed(value)))
            }
            fn read_text(text: &str) -> Result<Self, String> {
                let number = text.trim().parse::<i64>().map(Value::Integer);
                Self::read(&number.map_err(|_| expected::<Self>(format!("{text:?}")))?)
            }
            fn write(&self) -> Value {
                Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )+};
}
whole_number!(u16, u64, usize);

impl Setting for f64 {
    fn kind() -> String {
        "a number".to_owned()
    }
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            // A number of seconds is far below 2^53, above which this would round.
            #[allow(clippy::cast_precision_loss)]
            Value::Integer(number) => Ok(*number as Self),
            Value::Float(number) if number.is_finite() => Ok(*number),
            other => Err(expected::<Self>(displayed(other))),
        }
    }
    fn read_text(text: &str) -> Result<Self, String> {
        let number = text.trim().parse::<Self>().map(Value::Float);
        Self::read(&number.map_err(|_| expected::<Self>(format!("{text:?}")))?)
    }
    fn write(&self) -> Value {
        Value::Float(*self)
    }
}

impl Setting for bool {
    fn kind() -> String {
        "true or false".to_owned()
    }
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| expected::<Self>(displayed(value)))
    }
    fn read_text(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(expected::<Self>(format!("{text:?}"))),
        }
    }
    fn write(&self) -> Value {
        Value::Boolean(*self)
    }
}

/// A setting that is a single text.
trait Text: Sized {
    fn kind() -> String;
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! text_setting {
    ($($type:ty),+) => {$(
        impl Setting for $type {
            fn kind() -> String {
                <Self as Text>::kind()
            }
            fn read(value: &Value) -> Result<Self, String> {
                match value {
                    Value::String(text) => Self::parse(text),
                    other => Err(expected::<Self>(other.type_str())),
                }
            }
            fn read_text(text: &str) -> Result<Self, String> {
                Self::parse(text)
            }
            fn write(&self) -> Value {
                Value::String(self.show())
            }
        }
    )+};
}
text_setting!(String, Secret, PathBuf, Option<PathBuf>, Option<PublicUrl>);
text_setting!(AuthMode, OnIdle, Durability, WorkerStart, Sandbox, LogFormat, RegistrationPolicy);

impl Text for String {
    fn kind() -> String {
        "text".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Text for Secret {
    fn kind() -> String {
        "secret text".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == Self::MASK {
            return Err("this is the mask that is printed for a secret, not the secret".to_owned());
        }
        Ok(Self::new(text))
    }
    fn show(&self) -> String {
        self.masked().to_owned()
    }
}

impl Text for PathBuf {
    fn kind() -> String {
        "a path".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected a path, found empty text".to_owned()),
            text if text.contains('\0') => Err("a path must not contain a zero byte".to_owned()),
            text => Ok(Self::from(text)),
        }
    }
    fn show(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

impl Text for Option<PathBuf> {
    fn kind() -> String {
        "a path; empty for none".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { PathBuf::parse(text).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map(Text::show).unwrap_or_default()
    }
}

impl Text for Option<PublicUrl> {
    fn kind() -> String {
        "an http:// or https:// address; empty for none".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let url = PublicUrl::parse(text).map(Some);
        url.ok_or_else(|| {
            format!(
                "{text:?} is not an address such as https://uni.example.org/phoebe/: http:// or \
                 https://, a host, and maybe a path of letters, digits, `-`, `.`, `_` and `~`"
            )
        })
    }
    fn show(&self) -> String {
        self.as_ref().map(PublicUrl::to_string).unwrap_or_default()
    }
}

impl Text for IpNet {
    fn kind() -> String {
        "an IP address or range".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let range = text.parse::<Self>().map(|range| range.trunc());
        let address = || text.parse::<IpAddr>().map(|address| address.to_canonical().into());
        range.or_else(|_| address()).map_err(|_| {
            format!(
                "{text:?} is not an IP address such as 10.0.0.1 or ::1, or a range such as \
                 10.0.0.0/8"
            )
        })
    }
    fn show(&self) -> String {
        match self.prefix_len() == self.max_prefix_len() {
            true => self.addr().to_string(),
            false => self.to_string(),
        }
    }
}

/// An enum of words. Each value is written as its first word.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal $(| $older:literal)*),+ }) => {
        impl Text for $type {
            fn kind() -> String {
                [$($word),+].map(|word| format!("{word:?}")).join(" or ")
            }
            fn parse(text: &str) -> Result<Self, String> {
                match text.trim().to_ascii_lowercase().as_str() {
                    $($word $(| $older)* => Ok(Self::$variant),)+
                    other => Err(unknown_word(&<Self as Text>::kind(), other, &[$($word),+])),
                }
            }
            fn show(&self) -> String {
                match self {
                    $(Self::$variant => $word.to_owned(),)+
                }
            }
        }
    };
}
words!(AuthMode {
    None = "none",
    Password = "password",
    Jwt = "jwt" | "internal",
    External = "external"
});
words!(RegistrationPolicy { Open = "open", Closed = "closed" });
words!(OnIdle { Hibernate = "hibernate", Terminate = "terminate" });
words!(Durability { Command = "command", Idle = "idle", Off = "off" });
words!(WorkerStart { Fork = "fork", Spawn = "spawn" });
words!(Sandbox { Enforce = "enforce", BestEffort = "best-effort", Off = "off" });

fn unknown_word(kind: &str, found: &str, known: &[&str]) -> String {
    let hint = nearest(found, known.iter().copied())
        .map(|word| format!("; did you mean {word:?}?"))
        .unwrap_or_default();
    format!("expected {kind}, found {found:?}{hint}")
}

impl Text for LogFormat {
    fn kind() -> String {
        "\"text\" or \"json\"".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            // Existing files have the format string of Python's `logging`.
            format if format.contains('%') || format.contains('{') => Ok(Self::Text),
            other => Err(unknown_word(&<Self as Text>::kind(), other, &["text", "json"])),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

impl<T: Text> Setting for Vec<T> {
    fn kind() -> String {
        format!("a list ({}), or text with commas", T::kind())
    }
    fn read(value: &Value) -> Result<Self, String> {
        let item = |value: &Value| match value {
            Value::String(text) => T::parse(text),
            other => Err(format!("expected {} in the list, found {}", T::kind(), other.type_str())),
        };
        match value {
            Value::Array(items) => items.iter().map(item).collect(),
            Value::String(text) => Self::read_text(text),
            other => Err(expected::<Self>(other.type_str())),
        }
    }
    fn read_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
    }
    fn write(&self) -> Value {
        Value::Array(self.iter().map(|item| Value::String(item.show())).collect())
    }
}

/// Returns a check that accepts `low..=high`.
pub(super) fn within<T>(low: T, high: T) -> impl Fn(&T) -> Result<(), String>
where
    T: PartialOrd + Display,
{
    move |value| {
        if (&low..=&high).contains(&value) {
            return Ok(());
        }
        Err(format!("{value} is out of range; accepted is {low} to {high}"))
    }
}

/// Returns a check that accepts `low` and more.
pub(super) fn at_least<T: PartialOrd + Display>(low: T) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if *value >= low {
            return Ok(());
        }
        Err(format!("{value} is out of range; accepted is {low} or more"))
    }
}

/// Rejects blank text.
pub(super) fn not_blank(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("expected text, found none".to_owned()) } else { Ok(()) }
}

/// Accepts names of token signature algorithms.
pub(super) fn jwt_algorithms(names: &[String]) -> Result<(), String> {
    const KNOWN: [&str; 12] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
        "ES384", "EdDSA",
    ];
    match names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        None => Ok(()),
        Some(other) => Err(unknown_word(&KNOWN.join(", "), other, &KNOWN)),
    }
}

/// Accepts a cgroup setting.
pub(super) fn cgroup(text: &str) -> Result<(), String> {
    match text {
        "auto" | "off" => Ok(()),
        path if path.starts_with('/') => Ok(()),
        other => {
            Err(format!("expected auto, off or the absolute path of a folder, found {other:?}"))
        }
    }
}

/// Accepts names of log levels of Python and Rust.
pub(super) fn log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 7] = ["TRACE", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL"];
    let upper = text.to_ascii_uppercase();
    if LEVELS.contains(&upper.as_str()) {
        return Ok(());
    }
    Err(unknown_word("TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL", &upper, &LEVELS))
}
