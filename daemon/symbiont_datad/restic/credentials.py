"""What opens a bucket: variables of the environment, systemd credentials and `~/.aws/credentials`.

The variables are those that each cloud's own tools read, and restic's names where they differ. A file in
`$CREDENTIALS_DIRECTORY` that is named like a variable in lower case stands for it (systemd.exec(5), `LoadCredential=`).
What a machine or a pod is given by its cloud (instance metadata, web identity) obstore fetches by itself.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass

from symbiont_datad.restic.errors import RepositoryError


@dataclass(frozen=True, slots=True)
class Cloud:
    """A kind of object store: how people call it, and what can be said about it in the environment.

    `settings` are obstore's names, each with the variables that stand for it, the first one wins. `endpoint` is the
    setting that names another server, `allow_http` the variable that allows one without TLS, `needed` what to set.
    """

    words: str
    settings: Mapping[str, tuple[str, ...]]
    endpoint: str
    allow_http: str
    needed: str


CLOUDS = {
    "s3": Cloud(
        "S3",
        {
            "access_key_id": ("AWS_ACCESS_KEY_ID",),
            "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
            "session_token": ("AWS_SESSION_TOKEN",),
            "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
            "aws_endpoint_url_s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
            "virtual_hosted_style_request": ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST",),
            "server_side_encryption": ("AWS_SERVER_SIDE_ENCRYPTION",),
            "sse_kms_key_id": ("AWS_SSE_KMS_KEY_ID",),
            "role_arn": ("AWS_ROLE_ARN",),
            "role_session_name": ("AWS_ROLE_SESSION_NAME",),
            "web_identity_token_file": ("AWS_WEB_IDENTITY_TOKEN_FILE",),
            "container_credentials_relative_uri": ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
            "container_credentials_full_uri": ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
            "container_authorization_token_file": ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",),
            "metadata_endpoint": ("AWS_METADATA_ENDPOINT",),
        },
        endpoint="aws_endpoint_url_s3",  # beats what obstore itself finds in the environment
        allow_http="AWS_ALLOW_HTTP",
        needed="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and AWS_REGION",
    ),
    "gs": Cloud(
        "Google Cloud Storage",
        {
            "application_credentials": ("GOOGLE_APPLICATION_CREDENTIALS",),
            "bearer_token": ("GOOGLE_BEARER_TOKEN", "GOOGLE_ACCESS_TOKEN"),
            "base_url": ("GOOGLE_BASE_URL",),
        },
        endpoint="base_url",
        allow_http="GOOGLE_ALLOW_HTTP",
        needed="GOOGLE_APPLICATION_CREDENTIALS (the path of a service account's key file)",
    ),
    "az": Cloud(
        "Azure Blob Storage",
        {
            "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ACCOUNT_NAME"),
            "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_ACCOUNT_KEY"),
            "sas_key": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_ACCOUNT_SAS"),
            "client_id": ("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
            "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
            "tenant_id": ("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
            "federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
            "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
            "msi_endpoint": ("AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT"),
        },
        endpoint="endpoint",
        allow_http="AZURE_ALLOW_HTTP",
        needed="AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)",
    ),
}
"""By the scheme of a location."""

SECRETS = ("secret_access_key", "session_token", "bearer_token", "account_key", "sas_key", "client_secret")
"""The settings that must never be shown."""

_GIVEN_BY_THE_CLOUD = (
    "web_identity_token_file",
    "container_credentials_relative_uri",
    "container_credentials_full_uri",
)
_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


def settings_for(cloud: Cloud, environ: Mapping[str, str]) -> dict[str, str]:
    """What is said about a cloud, by obstore's names. A variable comes before a systemd credential of its name.

    Raises RepositoryError when a file that is named can't be read; no value of a secret is in the message.
    """
    found = {}
    for setting, variables in cloud.settings.items():
        value = next(filter(None, (_value(variable, environ) for variable in variables)), None)
        if value:
            found[setting] = value
    if cloud is CLOUDS["s3"] and not any(name in found for name in ("access_key_id", *_GIVEN_BY_THE_CLOUD)):
        found = {**found, **{key: value for key, value in _profile(environ).items() if key not in found}}
    return found


def _value(variable: str, environ: Mapping[str, str]) -> str:
    if environ.get(variable):
        return environ[variable]
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return ""
    path = os.path.join(folder, variable.lower())
    try:
        with open(path, encoding="utf-8") as file:
            value = file.read().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"can't read the credential {path}: {_why(error)}") from None
    # This variable holds a path; the credential is the key file itself.
    return path if variable == _KEY_FILE and value.startswith("{") else value


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What the shared credentials file says; nothing when there is none. A profile that is asked for must be there."""
    wanted = environ.get("AWS_PROFILE", "")
    path = environ.get("AWS_SHARED_CREDENTIALS_FILE", "")
    named = bool(path)
    if not path and environ.get("HOME"):
        path = os.path.join(environ["HOME"], ".aws", "credentials")
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        if wanted or named:
            raise RepositoryError(f"the AWS credentials file {path or '~/.aws/credentials'} isn't there") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"can't read the AWS credentials file {path}: {_why(error)}") from None
    except configparser.Error:
        raise RepositoryError(f"the AWS credentials file {path} is no valid ini file") from None
    if not parser.has_section(wanted or "default"):
        if wanted:
            raise RepositoryError(f"the AWS credentials file {path} has no profile {wanted}")
        return {}
    section = parser[wanted or "default"]
    names = {
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "session_token": "aws_session_token",
        "region": "region",
    }
    return {setting: section[name] for setting, name in names.items() if section.get(name)}


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else "it is no text"
