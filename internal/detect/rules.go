package detect

import "slices"

// Info describes a built-in rule.
type Info struct {
	Rule  string // its name: in Match.Rule, in Options.Off, in an entry's policy
	Class Class
	Finds string // one line, as in docs/detectors.md
}

type rule uint8

const (
	ruleCard rule = iota
	ruleCVV
	rulePIN
	ruleTrack
	rulePrivateKey
	ruleJWT
	ruleBearer
	rulePassword
	ruleSecretName
	ruleCookie
	ruleURLPassword
	ruleCurlUser
	ruleWireGuard
	ruleAWSKey
	ruleAWSSecret
	ruleGCP
	ruleAzure
	ruleCloud
	ruleGitHub
	ruleGitLab
	ruleCodeHost
	ruleSlack
	ruleDiscord
	ruleTelegram
	ruleTeams
	ruleOpenAI
	ruleAnthropic
	ruleHuggingFace
	ruleModel
	ruleStripe
	rulePayment
	ruleService
	ruleSSN
	ruleIBAN
	ruleNHS
	ruleEmail
	rulePhone
	ruleIP
	ruleDOB
	numRules
)

var rules = [numRules]Info{
	ruleCard:        {"card", Card, "card numbers of every issuer range, grouped by single spaces or hyphens or not at all"},
	ruleCVV:         {"cvv", CardSecurity, "card security codes: behind a word such as cvv, under such a name, behind a card number and its expiry"},
	rulePIN:         {"pin", CardSecurity, "PINs and PIN blocks: under such a name, behind the word PIN beside a card number"},
	ruleTrack:       {"track", CardSecurity, "magnetic stripe data, tracks 1 and 2, also without sentinels"},
	rulePrivateKey:  {"private_key", Secret, "private keys in PEM, PGP, SSH and PuTTY form, with real or escaped line breaks, cut off, or in base64"},
	ruleJWT:         {"jwt", Secret, "JSON Web Tokens, signed, unsigned or encrypted"},
	ruleBearer:      {"bearer", Secret, "what follows Bearer or Basic"},
	rulePassword:    {"password", Secret, "values under names such as password, passphrase, pwd, in JSON and as key=value, key: value, key => value"},
	ruleSecretName:  {"secret", Secret, "values under names such as secret, token, api_key, authorization, in JSON and as key=value, key: value, key => value"},
	ruleCookie:      {"cookie", Secret, "values under cookie and set-cookie"},
	ruleURLPassword: {"url_password", Secret, "the password of scheme://user:password@host, also of connection strings"},
	ruleCurlUser:    {"curl_user", Secret, "the password of curl -u user:password"},
	ruleWireGuard:   {"wireguard_key", Secret, "a WireGuard private key that is the whole text; with its name it is a secret"},
	ruleAWSKey:      {"aws_access_key", Secret, "AWS access key ids and Bedrock API keys"},
	ruleAWSSecret:   {"aws_secret_key", Secret, "40 base64 characters within 256 bytes of an access key id"},
	ruleGCP:         {"gcp_key", Secret, "Google API keys, OAuth client secrets, access and refresh tokens"},
	ruleAzure:       {"azure_key", Secret, "Azure client secrets, signatures of shared access, DevOps tokens"},
	ruleCloud:       {"cloud_token", Secret, "keys of other clouds and their tools: Alibaba, DigitalOcean, Databricks, Heroku, Fly.io, Vault, Terraform, Pulumi and more"},
	ruleGitHub:      {"github_token", Secret, "GitHub tokens"},
	ruleGitLab:      {"gitlab_token", Secret, "GitLab tokens"},
	ruleCodeHost:    {"code_host_token", Secret, "tokens of Bitbucket and Atlassian, npm, PyPI, RubyGems, Docker Hub, Sourcegraph and more"},
	ruleSlack:       {"slack_token", Secret, "Slack tokens and webhooks"},
	ruleDiscord:     {"discord_token", Secret, "Discord bot tokens and webhooks"},
	ruleTelegram:    {"telegram_token", Secret, "Telegram bot tokens"},
	ruleTeams:       {"teams_webhook", Secret, "Microsoft Teams webhooks"},
	ruleOpenAI:      {"openai_key", Secret, "keys that begin with sk-: OpenAI and those who do as they do"},
	ruleAnthropic:   {"anthropic_key", Secret, "Anthropic keys"},
	ruleHuggingFace: {"huggingface_token", Secret, "Hugging Face tokens"},
	ruleModel:       {"model_provider_key", Secret, "keys of other model providers: Groq, xAI, Perplexity, Replicate, NVIDIA, Together, Fireworks and more"},
	ruleStripe:      {"stripe_key", Secret, "Stripe secret and restricted keys, webhook secrets"},
	rulePayment:     {"payment_key", Secret, "keys of Square, Shopify, Flutterwave, EasyPost, Shippo, Plaid, Razorpay and more"},
	ruleService:     {"service_token", Secret, "keys of other services that begin all alike: SendGrid, Twilio, Notion, Linear, New Relic, Sentry, Grafana, 1Password and more"},
	ruleSSN:         {"us_ssn", Personal, "US social security numbers"},
	ruleIBAN:        {"iban", Personal, "international bank account numbers"},
	ruleNHS:         {"nhs_number", Personal, "numbers of the UK's National Health Service"},
	ruleEmail:       {"email", Personal, "e-mail addresses"},
	rulePhone:       {"phone", Personal, "phone numbers: international, North American, and others behind a word such as phone"},
	ruleIP:          {"ip", Personal, "IPv4 and IPv6 addresses"},
	ruleDOB:         {"date_of_birth", Personal, "dates under a name such as dob, or behind a word such as born"},
}

// Rules lists the built-in rules in the order of docs/detectors.md.
func Rules() []Info { return slices.Clone(rules[:]) }
