//! The ways in which a user's code gets into a worker: what PHOEBE executes of a Bundle.

use serde_json::{Value, json};

use crate::support::Session;

/// How code is delivered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    /// `set_value` of a `CodeParameter`.
    Code,
    /// A Bundle that comes with a `CodeParameter`.
    Bundle,
    /// A Bundle that comes with a constraint.
    Constraint,
    /// Text brought by `attach_parameters`, executed by a constraint.
    Attached,
    /// A pickle inside a Bundle, which the worker loads when a computation's result comes back.
    Pickle,
}

impl Delivery {
    pub(super) const ALL: [Self; 5] =
        [Self::Code, Self::Bundle, Self::Constraint, Self::Attached, Self::Pickle];

    /// Executes a program in the session's worker. It leaves its outcome in `builtins.outcome`.
    pub(super) async fn deliver(self, session: &Session, program: &str) -> Value {
        let execute =
            |program: &str| format!("exec(bytes.fromhex('{}').decode(), dict())", hex(program));
        if !matches!(self, Self::Code) {
            prepare(session).await;
        }
        match self {
            Self::Code => {
                let answer = run_code(session, &execute(program)).await;
                if answer["success"] != true {
                    return answer;
                }
            }
            Self::Bundle => {
                load_bundle(session, &execute(program)).await;
            }
            Self::Constraint => run_constraint(session, &execute(program)).await,
            Self::Attached => {
                let parameter =
                    json!({"ptype": "string", "qualifier": "planted", "value": hex(program)});
                let attach = json!({"command": "attach_parameters", "parameters": [parameter]});
                session.result(attach).await;
                let planted = "[each.get_value() for each in __import__('gc').get_objects() if \
                               type(each).__name__ == 'StringParameter' and each.qualifier == \
                               'planted'][0]";
                let expression = format!("exec(bytes.fromhex({planted}).decode(), dict())");
                run_constraint(session, &expression).await;
            }
            Self::Pickle => {
                // The parameter goes, for PHOEBE would refuse to compute with it.
                let plant = format!(
                    "import gc\n\
                     class Evil:\n    def __reduce__(self): return exec, ({program:?}, dict())\n\
                     for each in gc.get_objects():\n    \
                         if type(each).__name__ == 'Bundle':\n        \
                             each._evil = Evil()\n        \
                             each._params = [p for p in each._params if p.feature != 'evil']\n"
                );
                run_code(session, &execute(&plant)).await;
                session.result(json!({"command": "run_compute"})).await;
                prepare(session).await;
            }
        }
        run_code(session, SAY_OUTCOME).await
    }
}

/// Tells, as an error, what the last program left; and forgets it.
const SAY_OUTCOME: &str = "import builtins\noutcome = vars(builtins).pop('outcome', 'nothing \
was executed')\nraise Exception(outcome)";

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives the session a Bundle with a dataset, and with a `CodeParameter` that does nothing yet.
pub(super) async fn prepare(session: &Session) {
    load_bundle(session, "    pass").await;
}

/// Loads a fresh Bundle with code in it.
async fn load_bundle(session: &Session, code: &str) {
    session.result(json!({"command": "new_bundle"})).await;
    let mut parameters: Vec<Value> = serde_json::from_str(&bundle(session).await).unwrap();
    parameters.push(json!({
        "Class": "CodeParameter", "qualifier": "custom_code", "context": "feature",
        "feature": "evil",
        "kind": "Evil", "value": code, "description": "", "readonly": false,
    }));
    load(session, &serde_json::to_string(&parameters).unwrap()).await;
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "compute_phases": [0.25], "dataset": "lc01"
    });
    session.result(dataset).await;
}

async fn bundle(session: &Session) -> String {
    let result = session.result(json!({"command": "get_bundle"})).await;
    result["bundle"].as_str().unwrap().to_owned()
}

async fn load(session: &Session, bundle: &str) {
    session.result(json!({"command": "load_bundle", "bundle": bundle})).await;
}

async fn run_code(session: &Session, code: &str) -> Value {
    let command = json!({"command": "set_value", "twig": "custom_code@evil", "value": code});
    session.send(&command).await.body
}

/// Loads the session's Bundle with another expression in a constraint: no command sets one.
async fn run_constraint(session: &Session, expression: &str) {
    let text = bundle(session).await;
    // Python writes numbers that JSON does not have.
    let json = ["-Infinity", "Infinity", "NaN"]
        .iter()
        .fold(text.clone(), |json, number| json.replace(number, "null"));
    let parameters: Vec<Value> = serde_json::from_str(&json).unwrap();
    let constraint = parameters.iter().find(|parameter| {
        parameter["qualifier"] == "esinw" && parameter["context"] == "constraint"
    });
    let before = constraint.expect("a binary has one")["value"].to_string();
    let after = json!(format!("{expression}+sin(0)*{{ecc@binary@component}}")).to_string();
    assert!(text.contains(&before), "{before}");
    load(session, &text.replacen(&before, &after, 1)).await;
    // Only a change makes PHOEBE evaluate it, and it may have either value already.
    for value in [0.1, 0.2] {
        let change =
            json!({"command": "set_value", "twig": "ecc@binary@component", "value": value});
        session.send(&change).await;
    }
}
