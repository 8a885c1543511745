use super::*;

fn check_variable(variable: &str, redacted: &str) {
    assert_eq!(Redactor::default().variable(variable), redacted);
}

#[test]
fn variables_that_look_secret_are_redacted_and_others_are_not() {
    for name in
        ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD", "MYSQL_PWD", "OPENAI_API_KEY", "key"]
    {
        check_variable(&format!("{name}=hunter2"), &format!("{name}=[redacted]"));
    }
    for harmless in
        ["PWD=/home/me", "PATH=/bin", "KEYBOARD=de", "RANK=3", "COMPASS=n", "HF_TOKEN=", "odd"]
    {
        check_variable(harmless, harmless);
    }
}

#[test]
fn values_that_are_secrets_by_their_form_are_redacted_wherever_they_stand() {
    check_variable(
        "DATABASE=postgres://me:hunter2@db/x?y=1",
        "DATABASE=postgres://me:[redacted]@db/x?y=1",
    );
    check_variable("A=x AKIAIOSFODNN7EXAMPLE y", "A=x [redacted] y");
    check_variable("URL=http://host:8080/a@b", "URL=http://host:8080/a@b");
}

#[test]
fn arguments_are_redacted_by_their_names() {
    let check = |arguments: &[&str], redacted: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        assert_eq!(Redactor::default().arguments(&arguments), redacted);
    };
    check(&["serve", "--api-key=k", "--port=80"], &["serve", "--api-key=[redacted]", "--port=80"]);
    check(&["serve", "--password", "p", "x"], &["serve", "--password", "[redacted]", "x"]);
    check(&["curl", "-H", "Authorization: Bearer x"], &["curl", "-H", "Authorization: [redacted]"]);
    check(&["--no-auth", "--verbose"], &["--no-auth", "--verbose"]);
    check(&["train.py", "--lr", "0.1"], &["train.py", "--lr", "0.1"]);
}

#[test]
fn the_rule_can_be_extended() {
    let redactor = Redactor::new(["(?i)license", "lot-[0-9]+"]).unwrap();
    assert_eq!(redactor.variable("LICENSE_SERVER=a"), "LICENSE_SERVER=[redacted]");
    assert_eq!(redactor.variable("NOTE=of lot-77."), "NOTE=of [redacted].");
    assert!(Redactor::new(["("]).is_err());
}

fn check_argument(argument: &str, redacted: &str) {
    assert_eq!(Redactor::default().arguments(&[argument.to_owned()]), [redacted]);
}

#[test]
fn a_secret_that_a_value_names_is_redacted_within_it() {
    let check = check_argument;
    check("--env=API_KEY=abc", "--env=API_KEY=[redacted]");
    check("cd x && PASSWORD=abc ./run --fast", "cd x && PASSWORD=[redacted] ./run --fast");
    check("A=1 B_SECRET='a b' ./run", "A=1 B_SECRET='[redacted]' ./run");
    check("A=1 B_SECRET='a b ./run", "A=1 B_SECRET='[redacted]");
    check(
        r#"{"user": "me", "token": "a b", "n": 1}"#,
        r#"{"user": "me", "token": "[redacted]", "n": 1}"#,
    );
    check(r#"{\"token\":\"abc\",\"n\":1}"#, r#"{\"token\":\"[redacted]\",\"n\":1}"#);
    check(
        "curl -H 'Authorization: Bearer abc' http://h/",
        "curl -H 'Authorization: [redacted]' http://h/",
    );
    check("http://h/x?access_token=abc&n=1", "http://h/x?access_token=[redacted]&n=1");
    check("connect(password = \"abc\")", "connect(password = \"[redacted]\")");
    check_variable("SPARK_OPTS=-Dtoken=abc -Xmx1g", "SPARK_OPTS=-Dtoken=[redacted] -Xmx1g");
    check_variable(
        "OPTIONS=a.key=x,db_key=abc,n=1",
        "OPTIONS=a.key=[redacted],db_key=[redacted],n=1",
    );
}

#[test]
fn ordinary_text_stays_as_it_is() {
    for text in [
        "cd x && PWD=/tmp ./run --lr=0.1 --name=a:b",
        "sorted(rows, key=len, reverse=True)",
        "the key: it is under the mat",
        "monkey=1 passes=3 author=me",
        "serve --max_tokens=100 --tokenizer=gpt2",
        "registry/auth:1.2 http://auth:8080/secret:latest",
        "import os; print(os.environ['HOME'])",
        "token == other and password in words",
        "auth-service secrets tokens",
    ] {
        check_argument(text, text);
        check_variable(&format!("NOTE={text}"), &format!("NOTE={text}"));
    }
}

#[test]
fn what_is_redacted_stays_as_it_is() {
    for text in ["a TOKEN=[redacted] b", "a TOKEN='[redacted]' b", "{\"token\": \"[redacted]\"}"] {
        check_argument(text, text);
    }
}
