//! JSON bodies: parses as little as the route needs, and answers a wrong body with a 422 that lists
//! every error.
//!
//! [`Fields`] exists because a 422 must list all wrong fields at once, each with the input and the
//! type names of pydantic, and serde stops at the first error. Libraries that collect errors
//! (`eserde`, `deserr`) lack the input or the remaining fields, and need more code.

use std::borrow::Cow;
use std::fmt;

use axum::body::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{Context, HttpError, Place, Problem};

/// The deepest nesting of a body: deeper than a Bundle, far below the parser's stack limit.
const MAX_DEPTH: usize = 100;

/// Input above this many bytes is not echoed in a 422.
const MAX_ECHOED_INPUT: usize = 64 * 1024;

/// Returns the `command` of a JSON object. It is empty if the field is missing or not a string; the
/// worker refuses that.
pub fn command_name(body: &Bytes) -> Result<String, HttpError> {
    let text = text_of(body)?;
    match parse(text, ObjectSeed) {
        Ok(Some(name)) => Ok(name.into_owned()),
        Ok(None) => Err(HttpError::validation(vec![not_an_object(vec!["body".into()], text)])),
        Err(problem) => Err(problem),
    }
}

/// One command of a batch: its name and its bytes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) body: Bytes,
}

/// Returns the commands of a JSON list of at most `limit` objects.
pub(super) fn commands(body: &Bytes, limit: usize) -> Result<Vec<Command>, HttpError> {
    let text = text_of(body)?;
    let Some(items) = parse(text, ListSeed { limit })? else {
        let problem = Problem {
            kind: "list_type",
            msg: "Input should be a valid list".to_owned(),
            ..problem_at(vec!["body".into()], text)
        };
        return Err(HttpError::validation(vec![problem]));
    };
    if items.len() > limit {
        let problem = Problem {
            kind: "too_long",
            msg: format!("List should have at most {limit} items"),
            input: None,
            ..problem_at(vec!["body".into()], text)
        };
        return Err(HttpError::validation(vec![problem]));
    }
    let mut commands = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    for (position, item) in items.into_iter().enumerate() {
        match parse(item.get(), ObjectSeed)? {
            Some(name) => commands.push(Command {
                name: name.into_owned(),
                body: body.slice_ref(item.get().as_bytes()),
            }),
            None => {
                problems.push(not_an_object(vec!["body".into(), position.into()], item.get()));
            }
        }
    }
    if problems.is_empty() { Ok(commands) } else { Err(HttpError::validation(problems)) }
}

/// A small JSON object whose fields are taken one by one. Errors are collected.
#[derive(Default)]
pub(super) struct Fields {
    fields: Map<String, Value>,
    input: Option<Box<RawValue>>,
    problems: Vec<Problem>,
}

impl Fields {
    /// Parses the object in `body`. An empty body and `null` are `None`.
    pub(super) fn optional(body: &Bytes) -> Result<Option<Self>, HttpError> {
        if body.is_empty() || body.trim_ascii() == b"null" {
            return Ok(None);
        }
        let text = text_of(body)?;
        match serde_json::from_str::<Value>(text).map_err(|error| invalid_json(text, &error))? {
            Value::Object(fields) => {
                Ok(Some(Self { fields, input: echoed(text), problems: Vec::new() }))
            }
            _ => Err(HttpError::validation(vec![not_an_object(vec!["body".into()], text)])),
        }
    }

    /// Parses the object in `body`, which must not be empty.
    pub(super) fn required(body: &Bytes) -> Result<Self, HttpError> {
        Self::optional(body)?.ok_or_else(missing_body)
    }

    /// Takes a required string.
    pub(super) fn text(&mut self, name: &str) -> String {
        if !self.fields.contains_key(name) {
            self.problems.push(Problem {
                kind: "missing",
                loc: vec!["body".into(), name.into()],
                msg: "Field required".to_owned(),
                input: self.input.clone(),
                ctx: None,
            });
            return String::new();
        }
        match self.fields.remove(name) {
            Some(Value::String(text)) => text,
            other => {
                self.wrong_text(name, other.unwrap_or_default());
                String::new()
            }
        }
    }

    /// Takes an optional string; `null` counts as missing.
    pub(super) fn optional_text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                self.wrong_text(name, other);
                None
            }
        }
    }

    /// Records an error if the string has more than `most` characters.
    pub(super) fn limit_length(&mut self, name: &str, text: &str, most: usize) {
        if text.chars().count() > most {
            let message = format!("String should have at most {most} characters");
            self.wrong("string_too_long", &message, name, Value::Null);
        }
    }

    /// Records an error if the string is blank.
    pub(super) fn require_text(&mut self, name: &str, text: &str) {
        if text.trim().is_empty() {
            let message = "String should have at least 1 character";
            self.wrong("string_too_short", message, name, Value::from(text));
        }
    }

    /// Takes an optional integer, 0 or more; `null` counts as missing.
    pub(super) fn optional_number(&mut self, name: &str) -> Option<u32> {
        let value = self.fields.remove(name).filter(|value| !value.is_null())?;
        // In JSON, 7.0 is an integer too.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        let number = whole.filter(|number| (0.0..=f64::from(u32::MAX)).contains(number));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let number = number.map(|number| number as u32);
        if number.is_none() {
            self.wrong("int_type", "Input should be a valid integer, 0 or more", name, value);
        }
        number
    }

    /// Returns the fields that were not taken, or all errors.
    pub(super) fn rest(self) -> Result<Map<String, Value>, HttpError> {
        if self.problems.is_empty() {
            Ok(self.fields)
        } else {
            Err(HttpError::validation(self.problems))
        }
    }

    /// Records an error if the remaining fields have more than `most` KiB as JSON.
    pub(super) fn limit_rest(&mut self, most: usize) {
        let bytes = serde_json::to_vec(&self.fields).map_or(usize::MAX, |json| json.len());
        if bytes > most * 1024 {
            self.problems.push(Problem {
                kind: "too_long",
                loc: vec!["body".into()],
                msg: format!(
                    "The fields that are stored as metadata should have at most {most} KiB as JSON"
                ),
                input: None,
                ctx: None,
            });
        }
    }

    fn wrong_text(&mut self, name: &str, value: Value) {
        self.wrong("string_type", "Input should be a valid string", name, value);
    }

    fn wrong(&mut self, kind: &'static str, message: &str, name: &str, value: Value) {
        self.problems.push(Problem {
            kind,
            loc: vec!["body".into(), name.into()],
            msg: message.to_owned(),
            input: serde_json::value::to_raw_value(&value).ok(),
            ctx: None,
        });
    }
}

fn text_of(body: &Bytes) -> Result<&str, HttpError> {
    if body.is_empty() {
        return Err(missing_body());
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| json_invalid(error.valid_up_to(), format!("Not UTF-8: {error}")))?;
    match too_deep(text) {
        Some(position) => Err(nested_too_deeply(position)),
        None => Ok(text),
    }
}

/// Returns the position at which the text exceeds the allowed depth. The text may be invalid JSON;
/// only brackets outside strings count.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(position);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn nested_too_deeply(position: usize) -> HttpError {
    HttpError::validation(vec![Problem {
        kind: "json_too_deep",
        loc: vec!["body".into(), position.into()],
        msg: format!("Lists and objects should be nested at most {MAX_DEPTH} levels deep"),
        input: None,
        ctx: None,
    }])
}

/// Parses all of `text` with `seed`.
fn parse<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, HttpError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| invalid_json(text, &error))
}

/// Reads the last `command` of an object, as Python does; `None` if the value is no object.
struct ObjectSeed;

impl<'de> DeserializeSeed<'de> for ObjectSeed {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A string that is borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Visitor methods that ignore a value of another type.
macro_rules! ignore_other_types {
    () => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("JSON")
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    };
}

impl<'de> Visitor<'de> for ObjectSeed {
    type Value = Option<Cow<'de, str>>;

    ignore_other_types!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut name = Cow::Borrowed("");
        while let Some(Text(key)) = map.next_key()? {
            if key == "command" {
                let value: &RawValue = map.next_value()?;
                name =
                    serde_json::from_str(value.get()).map_or(Cow::Borrowed(""), |Text(name)| name);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Some(name))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Reads the items of a list, keeping one more than `limit`; `None` if the value is no list.
struct ListSeed {
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for ListSeed {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ListSeed {
    type Value = Option<Vec<&'de RawValue>>;

    ignore_other_types!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= self.limit {
            match items.next_element()? {
                Some(item) => kept.push(item),
                None => return Ok(Some(kept)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

fn problem_at(loc: Vec<Place>, text: &str) -> Problem {
    Problem { kind: "", loc, msg: String::new(), input: echoed(text), ctx: None }
}

fn not_an_object(loc: Vec<Place>, text: &str) -> Problem {
    Problem {
        kind: "dict_type",
        msg: "Input should be a valid dictionary".to_owned(),
        ..problem_at(loc, text)
    }
}

/// The 422 for an invalid query string.
pub(super) fn bad_query(error: &str) -> HttpError {
    HttpError::validation(vec![Problem {
        kind: "value_error",
        loc: vec!["query".into()],
        msg: error.to_owned(),
        input: None,
        ctx: None,
    }])
}

fn missing_body() -> HttpError {
    HttpError::validation(vec![Problem {
        kind: "missing",
        loc: vec!["body".into()],
        msg: "Field required".to_owned(),
        input: None,
        ctx: None,
    }])
}

/// Returns the input for a 422, unless it is too large.
fn echoed(text: &str) -> Option<Box<RawValue>> {
    (text.len() <= MAX_ECHOED_INPUT)
        .then(|| RawValue::from_string(text.trim().to_owned()).ok())
        .flatten()
}

fn invalid_json(text: &str, error: &serde_json::Error) -> HttpError {
    let position = if error.is_eof() {
        text.len()
    } else {
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        (line_start + error.column().saturating_sub(1)).min(text.len())
    };
    // Clients count characters, serde_json counts bytes.
    let position = text.as_bytes()[..position].iter().filter(|&&byte| byte as i8 >= -0x40).count();
    json_invalid(position, python_message(error))
}

fn json_invalid(position: usize, error: String) -> HttpError {
    HttpError::validation(vec![Problem {
        kind: "json_invalid",
        loc: vec!["body".into(), position.into()],
        msg: "JSON decode error".to_owned(),
        input: serde_json::value::to_raw_value(&Map::new()).ok(),
        ctx: Some(Context { error }),
    }])
}

/// Translates the parser's message to the text of Python's `json`, which clients know.
fn python_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let known = [
        ("EOF while parsing a value", "Expecting value"),
        ("expected value", "Expecting value"),
        ("EOF while parsing a string", "Unterminated string starting at"),
        ("EOF while parsing an object", "Expecting ',' delimiter"),
        ("EOF while parsing a list", "Expecting ',' delimiter"),
        ("key must be a string", "Expecting property name enclosed in double quotes"),
        ("trailing characters", "Extra data"),
        ("expected `:`", "Expecting ':' delimiter"),
        ("expected `,` or", "Expecting ',' delimiter"),
        ("invalid escape", "Invalid \\escape"),
        ("control character", "Invalid control character at"),
    ];
    known
        .iter()
        .find(|(theirs, _)| text.starts_with(theirs))
        .map_or(text.clone(), |(_, ours)| (*ours).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(body: &'static str) -> String {
        command_name(&Bytes::from_static(body.as_bytes())).unwrap()
    }

    fn detail(error: HttpError) -> Value {
        assert_eq!(error.status(), 422);
        error.detail_json()
    }

    fn refusal(body: &'static [u8]) -> Value {
        detail(command_name(&Bytes::from_static(body)).unwrap_err())
    }

    #[test]
    fn the_name_is_the_last_command_as_in_python() {
        assert_eq!(name(r#" {"command": "ping"} "#), "ping");
        assert_eq!(name(r#"{"x": {"command": "no"}, "command": "ping", "y": [1]}"#), "ping");
        assert_eq!(name(r#"{"command": "a", "command": "b"}"#), "b");
        assert_eq!(name(r#"{"comm\u0061nd": "p\u0069ng"}"#), "ping");
    }

    #[test]
    fn a_command_without_a_name_goes_to_the_worker() {
        for body in ["{}", r#"{"command": 1}"#, r#"{"command": null}"#, r#"{"command": ["ping"]}"#]
        {
            assert_eq!(name(body), "");
        }
    }

    #[test]
    fn a_body_that_is_not_an_object_is_refused() {
        for body in ["[1]", "1", "-1", "1.5", "true", "null", "\"x\"", "[{}]"] {
            let expected = json!([{
                "type": "dict_type", "loc": ["body"], "msg": "Input should be a valid dictionary",
                "input": serde_json::from_str::<Value>(body).unwrap(),
            }]);
            assert_eq!(refusal(body.as_bytes()), expected);
        }
    }

    #[test]
    fn a_missing_body_is_a_missing_field() {
        let expected =
            json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]);
        assert_eq!(refusal(b""), expected);
    }

    #[test]
    fn invalid_json_is_refused_with_its_position() {
        let cases: [(&[u8], usize, &str); 9] = [
            (br#"{"command":"#, 11, "Expecting value"),
            (br#"{"command": oops}"#, 12, "Expecting value"),
            ("{\"é\": oops}".as_bytes(), 6, "Expecting value"),
            (b"{\n\"a\": 1,\n b}", 11, "Expecting property name enclosed in double quotes"),
            (b"{} {}", 3, "Extra data"),
            (br#"{"a" 1}"#, 5, "Expecting ':' delimiter"),
            (br#"{"a": 1 2}"#, 8, "Expecting ',' delimiter"),
            (b"{\"a\": NaN}", 6, "Expecting value"),
            (b"oops", 0, "Expecting value"),
        ];
        for (body, position, error) in cases {
            let expected = json!([{
                "type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error",
                "input": {}, "ctx": {"error": error},
            }]);
            assert_eq!(refusal(body), expected, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(refusal(b"{\"a\": \"\xff\"}")[0]["loc"], json!(["body", 7]));
    }

    #[test]
    fn a_large_refused_body_is_not_echoed() {
        let large: &'static [u8] = format!("[{}]", "1,".repeat(100_000) + "1").leak().as_bytes();
        assert_eq!(refusal(large)[0]["input"], Value::Null, "too large to be echoed");
    }

    #[test]
    fn depth_is_limited_and_brackets_in_strings_do_not_count() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let command =
            |value: String| Bytes::from(format!("{{\"command\": \"x\", \"a\": {value}}}"));
        assert_eq!(command_name(&command(nested(MAX_DEPTH - 1))).unwrap(), "x");
        for levels in [MAX_DEPTH, 1_000_000] {
            let body = command(nested(levels));
            assert_eq!(detail(command_name(&body).unwrap_err())[0]["type"], "json_too_deep");
            let batch = Bytes::from([b"[", &body[..], b"]"].concat());
            assert_eq!(detail(commands(&batch, 2).unwrap_err())[0]["type"], "json_too_deep");
            let fields = Fields::optional(&body).map(|_| ()).unwrap_err();
            assert_eq!(detail(fields)[0]["type"], "json_too_deep");
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        assert_eq!(detail(command_name(&objects.into()).unwrap_err())[0]["type"], "json_too_deep");
        for text in ["[".repeat(5000), "\\\"[{".repeat(5000), "{".repeat(5000) + "\\\\"] {
            assert_eq!(command_name(&command(format!("\"{text}\""))).unwrap(), "x");
        }
        assert_eq!(name(r#"{"command": "x", "a": [[1], [2], {"b": [3]}]}"#), "x");
    }

    #[test]
    fn a_batch_is_split_without_copying_its_commands() {
        let body = Bytes::from_static(br#" [ {"command": "a", "x": 1.50}, {"command":"b"} ] "#);
        let commands = commands(&body, 2).unwrap();
        let parts: Vec<_> = commands.iter().map(|one| (one.name.as_str(), &one.body[..])).collect();
        let expected: [(&str, &[u8]); 2] =
            [("a", br#"{"command": "a", "x": 1.50}"#), ("b", br#"{"command":"b"}"#)];
        assert_eq!(parts, expected);
        assert!(body.as_ptr_range().contains(&commands[0].body.as_ptr()), "not copied");
    }

    #[test]
    fn a_batch_is_refused_as_a_whole() {
        let refused = |body: &'static str| {
            detail(commands(&Bytes::from_static(body.as_bytes()), 2).unwrap_err())
        };
        assert_eq!(refused("{}")[0]["type"], "list_type");
        assert_eq!(refused("[{}, {}, {}]")[0]["type"], "too_long");
        assert_eq!(refused("[{}, 7]")[0]["loc"], json!(["body", 1]));
        assert_eq!(refused("[{}, 7]")[0]["input"], 7);
        assert_eq!(refused("[{}")[0]["type"], "json_invalid");
        assert!(commands(&Bytes::from_static(b"[]"), 2).unwrap().is_empty());
    }

    #[test]
    fn all_wrong_fields_are_reported_at_once() {
        let body = Bytes::from_static(br#"{"email": 5, "first_name": ["x"]}"#);
        let mut fields = Fields::required(&body).unwrap();
        let _ = (fields.text("email"), fields.text("password"), fields.optional_text("first_name"));
        let message = "Input should be a valid string";
        let whole = json!({"email": 5, "first_name": ["x"]});
        let expected = json!([
            {"type": "string_type", "loc": ["body", "email"], "msg": message, "input": 5},
            {"type": "missing", "loc": ["body", "password"], "msg": "Field required",
             "input": whole},
            {"type": "string_type", "loc": ["body", "first_name"], "msg": message,
             "input": ["x"]},
        ]);
        assert_eq!(detail(fields.rest().unwrap_err()), expected);
    }

    #[test]
    fn an_optional_object_may_be_missing_or_null() {
        assert!(Fields::optional(&Bytes::new()).unwrap().is_none());
        assert!(Fields::optional(&Bytes::from_static(b" null ")).unwrap().is_none());
        assert!(Fields::optional(&Bytes::from_static(b"{}")).unwrap().is_some());
        assert!(Fields::optional(&Bytes::from_static(b"[\"x\"]")).is_err());
    }
}
