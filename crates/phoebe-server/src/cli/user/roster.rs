//! A class as a CSV file. Everything that is wrong with it is told at once, line by line.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::group_name;
use crate::auth::Role;
use crate::auth::registration::{Rules, check_email};
use crate::cli::Failure;

/// The columns that a roster may have.
const COLUMNS: [&str; 6] = ["email", "first_name", "last_name", "role", "group", "password"];

/// Somebody who is to have an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    /// The line of the file.
    pub(super) line: u64,
    pub(super) email: String,
    pub(super) first_name: String,
    pub(super) last_name: String,
    /// The role, where one is given.
    pub(super) role: Option<Role>,
    pub(super) groups: BTreeSet<String>,
    /// The password, where one is given.
    pub(super) password: Option<String>,
}

/// Reads a roster from a file.
pub(super) fn read(path: &Path, rules: &Rules) -> Result<Vec<Person>, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    parse(&bytes, rules).map_err(|problems| {
        let text = problems.join("\n");
        Failure::Failed(format!("nothing was imported; {} is wrong:\n{text}", path.display()))
    })
}

/// The people of a roster, or everything that is wrong with it.
fn parse(bytes: &[u8], rules: &Rules) -> Result<Vec<Person>, Vec<String>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| vec!["it is no UTF-8 text; save it as \"CSV UTF-8\"".to_owned()])?;
    // Line ends of one kind, so that lines are counted as editors do.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let first_line = text.lines().next().unwrap_or_default();
    // Spreadsheets separate by semicolons where the comma is for decimals.
    let delimiter = if first_line.contains(';') && !first_line.contains(',') { b';' } else { b',' };
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).trim(Trim::All).from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| vec![error.to_string()])?;
    let columns = columns(headers)?;
    let mut problems = Vec::new();
    let mut people: Vec<Person> = Vec::new();
    let mut lines: HashMap<String, u64> = HashMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        if record.iter().all(str::is_empty) {
            continue;
        }
        match person(line, &record, &columns, rules) {
            Ok(person) => match lines.insert(person.email.to_lowercase(), line) {
                Some(first) => {
                    problems.push(format!("line {line}: {} is in line {first} too", person.email))
                }
                None => people.push(person),
            },
            Err(problem) => problems.push(format!("line {line}: {problem}")),
        }
    }
    if people.is_empty() && problems.is_empty() {
        problems.push("it names nobody".to_owned());
    }
    if problems.is_empty() { Ok(people) } else { Err(problems) }
}

/// Where each column is.
fn columns(headers: &StringRecord) -> Result<HashMap<&'static str, usize>, Vec<String>> {
    let mut columns = HashMap::new();
    let mut problems = Vec::new();
    for (position, header) in headers.iter().enumerate() {
        let name = header.to_lowercase().replace([' ', '-'], "_");
        match COLUMNS.into_iter().find(|column| *column == name) {
            Some(column) if columns.insert(column, position).is_some() => {
                problems.push(format!("line 1: the column {column} is there twice"));
            }
            Some(_) => {}
            None => problems.push(format!(
                "line 1: the column {header:?} is unknown; known are {}",
                COLUMNS.join(", ")
            )),
        }
    }
    if !columns.contains_key("email") {
        problems
            .push("line 1: there is no column email; the first line names the columns".to_owned());
    }
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

fn person(
    line: u64,
    record: &StringRecord,
    columns: &HashMap<&'static str, usize>,
    rules: &Rules,
) -> Result<Person, String> {
    let field = |column: &str| columns.get(column).and_then(|at| record.get(*at)).unwrap_or("");
    let email = field("email");
    let is_address =
        email.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty());
    if !is_address || email.contains(char::is_whitespace) {
        return Err(format!("{email:?} is no e-mail address"));
    }
    check_email(email).map_err(|error| error.to_string())?;
    let role = match field("role") {
        "" => None,
        word => Some(Role::named(word).ok_or_else(|| {
            format!("{email} has the unknown role {word:?}; known are student, instructor, admin")
        })?),
    };
    let groups = field("group").split('|').map(str::trim).filter(|group| !group.is_empty());
    let groups =
        groups.map(|group| group_name(group).map(str::to_owned)).collect::<Result<_, _>>()?;
    let password = Some(field("password")).filter(|password| !password.is_empty());
    if let Some(password) = password {
        rules.check_password(password).map_err(|error| format!("{email}: {error}"))?;
    }
    Ok(Person {
        line,
        email: email.to_owned(),
        first_name: field("first_name").to_owned(),
        last_name: field("last_name").to_owned(),
        role,
        groups,
        password: password.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn roster(text: &str) -> Result<Vec<Person>, Vec<String>> {
        let mut settings = Settings::default().auth;
        settings.min_password_length = 8;
        parse(text.as_bytes(), &Rules::of(&settings))
    }

    #[test]
    fn spreadsheets_are_understood() {
        let comma = "email,First Name,last_name,role,group,password\r\n\
                     ada@x.org,\"Ada, Countess\",Lovelace,,stars | planets,\r\n\
                     prof@x.org,,,Instructor,stars,long enough\r\n,,,,,\r\n";
        let people = roster(comma).unwrap();
        assert_eq!(people.len(), 2);
        assert_eq!(people[0].first_name, "Ada, Countess");
        assert_eq!(people[0].groups, ["planets", "stars"].map(str::to_owned).into());
        assert_eq!((people[0].role, people[0].password.as_deref()), (None, None));
        assert_eq!((people[1].line, people[1].role), (3, Some(Role::Instructor)));
        assert_eq!(people[1].password.as_deref(), Some("long enough"));
        let semicolon = "\u{feff}group;email\nstars;ada@x.org\n";
        let people = roster(semicolon).unwrap();
        assert_eq!((people[0].email.as_str(), people[0].line), ("ada@x.org", 2));
        assert_eq!(people[0].groups, ["stars".to_owned()].into());
    }

    #[test]
    fn all_that_is_wrong_is_told_by_line() {
        let problems = roster(
            "email,role,password\nada@x.org,,\nnobody,,\nbob@x.org,teacher,\nADA@x.org,,\n\
             eve@x.org,,short\nmallory@x.org,,,,\n",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:?}");
        for (problem, (line, word)) in problems.iter().zip([
            ("line 3", "no e-mail address"),
            ("line 4", "teacher"),
            ("line 5", "line 2 too"),
            ("line 6", "8 characters"),
            ("line: 7", "fields"),
        ]) {
            assert!(problem.contains(line) && problem.contains(word), "{problem}");
        }
        for (text, word) in [
            ("", "no column email"),
            ("mail\na@x.org\n", "unknown"),
            ("email,email\na@x.org,b@x.org\n", "twice"),
            ("email\n", "names nobody"),
        ] {
            assert!(roster(text).unwrap_err().join("\n").contains(word), "{text}");
        }
        let latin =
            parse(b"email,first_name\na@x.org,J\xfcrgen\n", &Rules::of(&Settings::default().auth));
        assert!(latin.unwrap_err()[0].contains("CSV UTF-8"));
    }
}
