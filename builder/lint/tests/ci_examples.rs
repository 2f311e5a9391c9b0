//! The examples of CI are YAML, refer to jobs that exist, hold shell that a shell can read, and run as an ordinary user
//! without rights.
#![allow(clippy::unwrap_used)] // a test fails by it

use saphyr::{LoadableYamlNode, Yaml};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/ci")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn yaml(text: &str) -> Yaml<'_> {
    let mut documents = Yaml::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn get<'y, 'i>(node: &'y Yaml<'i>, key: &str) -> Option<&'y Yaml<'i>> {
    node.as_mapping()?.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
}

fn entries<'y, 'i>(node: &'y Yaml<'i>) -> Vec<(String, &'y Yaml<'i>)> {
    node.as_mapping()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), value))
        .collect()
}

/// One text or a list of them.
fn texts(node: &Yaml<'_>) -> Vec<String> {
    match node.as_str() {
        Some(text) => vec![text.to_owned()],
        None => node.as_sequence().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
    }
}

/// The shell of each job of the workflow.
fn github(text: &str) -> Vec<(String, String)> {
    let workflow = yaml(text);
    let jobs = entries(get(&workflow, "jobs").unwrap());
    assert!(get(&workflow, "on").is_some() && get(&workflow, "permissions").is_some());
    let mut shell = Vec::new();
    for (name, job) in &jobs {
        for needed in get(job, "needs").map(texts).unwrap_or_default() {
            assert!(jobs.iter().any(|(name, _)| *name == needed), "{name} needs {needed}");
        }
        assert!(get(job, "runs-on").is_some() && get(job, "timeout-minutes").is_some(), "{name}");
        let options = get(get(job, "container").unwrap(), "options").unwrap().as_str().unwrap().to_owned();
        assert!(options.contains("--user 1001") && options.contains("--cap-drop ALL"), "{name}: {options}");
        for step in get(job, "steps").unwrap().as_sequence().unwrap() {
            let (uses, run) = (get(step, "uses"), get(step, "run"));
            assert!(uses.is_some() != run.is_some(), "a step of {name} uses an action or runs a command");
            assert!(uses.is_none_or(|action| action.as_str().unwrap().contains("@v")), "{name}");
            shell.extend(run.map(|run| (name.clone(), run.as_str().unwrap().to_owned())));
        }
    }
    shell
}

/// The shell of each job of the pipeline.
fn gitlab(text: &str) -> Vec<(String, String)> {
    const KEYWORDS: [&str; 4] = ["default", "variables", "stages", "workflow"];
    let pipeline = yaml(text);
    let stages = texts(get(&pipeline, "stages").unwrap());
    let jobs: Vec<_> =
        entries(&pipeline).into_iter().filter(|(name, _)| !KEYWORDS.contains(&name.as_str())).collect();
    let mut shell = Vec::new();
    for (name, job) in jobs.iter().filter(|(name, _)| !name.starts_with('.')) {
        let stage = get(job, "stage").unwrap().as_str().unwrap();
        assert!(stages.iter().any(|known| known == stage), "{name}: {stage}");
        for other in ["needs", "extends"].iter().filter_map(|key| get(job, key)).flat_map(texts) {
            assert!(jobs.iter().any(|(name, _)| *name == other), "{name} refers to {other}");
        }
        let script = texts(get(job, "script").unwrap());
        shell.extend(script.into_iter().map(|script| (name.clone(), script)));
    }
    shell
}

/// Every line that runs Ashlar, without where its output goes.
fn commands(shell: &[(String, String)]) -> Vec<String> {
    let lines = shell.iter().flat_map(|(_, script)| script.lines());
    let runs = lines.filter(|line| line.starts_with("ashlar "));
    runs.map(|line| line.split_once(" > ").map_or(line, |(command, _)| command).to_owned()).collect()
}

#[test]
fn jobs_shell_and_commands() {
    for (name, read) in
        [("github-actions.yml", github as fn(&str) -> Vec<(String, String)>), ("gitlab-ci.yml", gitlab)]
    {
        let text = text(name);
        let shell = read(&text);
        for (job, script) in &shell {
            // A line of Ashlar is whole: whoever extracts the commands need not know the shell.
            for line in script.lines().filter(|line| line.contains("ashlar ")) {
                assert!(
                    line.starts_with("ashlar ") && !line.ends_with('\\') && !line.contains(" | "),
                    "{job}: {line}"
                );
            }
            let mut check = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut check.stdin.take().unwrap(), script.as_bytes()).unwrap();
            assert!(check.wait().unwrap().success(), "{name}, {job}: {script}");
        }
        let commands = commands(&shell);
        let mut kinds: Vec<_> = commands.iter().filter_map(|command| command.split(' ').nth(1)).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["attach", "build", "cache", "lint", "sign", "verify-release"], "{name}");
        for command in
            commands.iter().filter(|c| c.starts_with("ashlar build") || c.starts_with("ashlar lint"))
        {
            assert!(command.contains(" --locked") && command.contains(" --json"), "{name}: {command}");
        }
    }
}

#[test]
fn no_rights_no_hosts_and_keys_only_where_they_sign() {
    for (name, read) in
        [("github-actions.yml", github as fn(&str) -> Vec<(String, String)>), ("gitlab-ci.yml", gitlab)]
    {
        let text = text(name);
        for word in [
            "sudo",
            "privileged: true",
            "--privileged",
            "://",
            "/dev/loop",
            "docker.sock",
            "pull_request_target",
        ] {
            assert!(!text.contains(word), "{name}: {word}");
        }
        for (job, script) in read(&text) {
            assert!(job == "sign" || !script.contains("ASHLAR_KEYS"), "{name}, {job}");
        }
        assert!(text.contains("image.lock"), "{name}: the cache is keyed by the lock file");
    }
    let container = std::fs::read_to_string(folder().join("Containerfile")).unwrap();
    assert!(container.trim_end().ends_with("USER 1001") && !container.contains("://"));
}

/// The workflow is kept apart by job, too: a secret is given to the job that signs and to no other.
#[test]
fn secrets_are_given_to_the_job_that_signs() {
    let text = text("github-actions.yml");
    let workflow = yaml(&text);
    for (name, job) in entries(get(&workflow, "jobs").unwrap()) {
        let uses_secrets = format!("{job:?}").contains("secrets.");
        assert_eq!(uses_secrets, name == "sign", "{name}");
        assert_eq!(get(job, "environment").is_some(), name == "sign", "{name}");
    }
}
