//! Files that hold credentials by their nature: judged by name and content together.

/// Longest file that is looked at, in bytes.
pub(crate) const LIMIT: u64 = 1 << 20;

/// Looks at the content of one kind of file.
type Holds = fn(&str) -> bool;

/// End of the path, what the file is, and what says that it holds a credential.
const FILES: &[(&str, &str, Holds)] = &[
    ("/.docker/config.json", "credentials of a container registry", docker),
    ("/.dockercfg", "credentials of a container registry", docker),
    ("/.dockerconfigjson", "credentials of a container registry", docker),
    ("/containers/auth.json", "credentials of a container registry", docker),
    ("/.netrc", "a .netrc with a password", |text| follows(text, "password")),
    ("/_netrc", "a .netrc with a password", |text| follows(text, "password")),
    ("/.npmrc", "an .npmrc with a credential", |text| {
        ["_authToken", "_password", "_auth"].iter().any(|key| setting(text, key))
    }),
    ("/.pypirc", "a .pypirc with a password", |text| setting(text, "password")),
    ("/.git-credentials", "git's stored credentials", url_with_password),
    ("/.pgpass", "passwords of PostgreSQL", |text| {
        text.lines().any(|line| !line.starts_with('#') && line.split(':').count() >= 5)
    }),
    ("/.aws/credentials", "credentials of AWS", |text| setting(text, "aws_secret_access_key")),
    ("/.kube/config", "credentials of Kubernetes", kubernetes),
    ("/kubeconfig", "credentials of Kubernetes", kubernetes),
    ("/gcloud/application_default_credentials.json", "credentials of Google Cloud", google),
    ("/.azure/accessTokens.json", "tokens of Azure", |text| json(text, "refreshToken")),
    ("/.azure/msal_token_cache.json", "tokens of Azure", |text| json(text, "secret")),
    ("/gh/hosts.yml", "a token of the GitHub client", |text| setting(text, "oauth_token")),
    ("/.terraform.d/credentials.tfrc.json", "a token of Terraform", |text| json(text, "token")),
    ("/.vault-token", "a token of Vault", |text| text.trim().len() >= 16),
    ("/.cargo/credentials", "a token of a Cargo registry", |text| setting(text, "token")),
    ("/.cargo/credentials.toml", "a token of a Cargo registry", |text| setting(text, "token")),
];

/// Whether a file of this path may hold credentials, so that its content is worth reading.
pub(crate) fn by_name(path: &str) -> Option<(&'static str, Holds)> {
    FILES.iter().find(|(end, ..)| path.ends_with(end)).map(|(_, what, holds)| (*what, *holds))
}

fn docker(text: &str) -> bool {
    ["auth", "identitytoken", "registrytoken", "password"].iter().any(|key| json(text, key))
}

fn kubernetes(text: &str) -> bool {
    ["client-key-data", "token", "password"].iter().any(|key| setting(text, key))
}

fn google(text: &str) -> bool {
    json(text, "refresh_token") || json(text, "private_key")
}

/// Whether `"key"` has a string with something in it.
fn json(text: &str, key: &str) -> bool {
    let quoted = format!("\"{key}\"");
    text.match_indices(&quoted).any(|(at, _)| {
        text.get(at + quoted.len()..)
            .and_then(|rest| rest.trim_start().strip_prefix(':'))
            .and_then(|rest| rest.trim_start().strip_prefix('"'))
            .is_some_and(|value| !value.starts_with('"'))
    })
}

/// Whether a line sets `key` (the end of its name) to a value that is no variable.
fn setting(text: &str, key: &str) -> bool {
    text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])).any(|line| {
        // `name=value` or `name: value`, whichever comes first: values may have both signs.
        let separator = line.find('=').into_iter().chain(line.find(": ")).min();
        let Some((name, value)) = separator.and_then(|at| line.split_at_checked(at)) else { return false };
        let value = value.trim_start_matches(['=', ':']);
        let name = name.trim().trim_matches(['"', '\'']);
        let value = value.trim().trim_matches(['"', '\'']);
        let named = name
            .strip_suffix(key)
            .is_some_and(|before| before.is_empty() || before.ends_with([':', ' ', '.']));
        named && !value.is_empty() && !value.starts_with('$')
    })
}

/// Whether a word follows the word `key`, as in .netrc.
fn follows(text: &str, key: &str) -> bool {
    let mut words = text.split_whitespace();
    words.any(|word| word == key) && words.next().is_some()
}

fn url_with_password(text: &str) -> bool {
    text.lines().any(|line| {
        line.split_once("://")
            .and_then(|(_, rest)| rest.split_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::by_name;

    fn found(path: &str, text: &str) -> bool {
        by_name(path).is_some_and(|(_, holds)| holds(text))
    }

    #[test]
    fn credentials_and_files_that_could_hold_them() {
        for (path, with, without) in [
            (
                "/root/.docker/config.json",
                r#"{"auths":{"r":{"auth":"dTpw"}}}"#,
                r#"{"auths":{"r":{}},"credsStore":"x"}"#,
            ),
            ("/root/.netrc", "machine h login u password p", "machine h login u"),
            ("/root/.npmrc", "//r/:_authToken=abc", "//r/:_authToken=${TOKEN}\nregistry=x\n#_auth=x"),
            ("/root/.pypirc", "[pypi]\npassword = x", "[pypi]\npassword =\nusername = x"),
            ("/root/.git-credentials", "https://u:p@h", "https://u@h"),
            ("/root/.pgpass", "h:5432:db:u:p", "# h:5432:db:u:p"),
            ("/root/.aws/credentials", "[default]\naws_secret_access_key = x", "[default]\nregion = x"),
            (
                "/root/.kube/config",
                "users:\n- user:\n    client-key-data: TFM=",
                "users:\n- user:\n    exec: x",
            ),
            (
                "/x/gcloud/application_default_credentials.json",
                r#"{"refresh_token": "x"}"#,
                r#"{"refresh_token": ""}"#,
            ),
            ("/root/.vault-token", "hvs.0123456789abcdef", "\n"),
            ("/root/.cargo/credentials.toml", "[registry]\ntoken = \"x\"", "[registry]\n# token = \"x\""),
        ] {
            assert!(found(path, with), "{path}");
            assert!(!found(path, without), "{path}");
        }
        assert!(by_name("/etc/netrc.conf").is_none());
        assert!(by_name("/root/config.json").is_none());
    }
}
