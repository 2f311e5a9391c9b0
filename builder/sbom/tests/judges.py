"""Documents of Ashlar judged by tools of others. Arguments: the judge, then its files."""

import json
import sys


def spdx(path):
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    document = parse_file(path)
    messages = validate_full_spdx_document(document)
    for message in messages:
        print(message.validation_message, message.context.spdx_id)
    assert not messages
    print(len(document.packages), "packages", len(document.relationships), "relationships")


def cyclonedx(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from cyclonedx.model.bom import Bom

    text = open(path).read()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    bom = Bom.from_json(json.loads(text))
    # Refuses edges that lead nowhere.
    bom.validate()
    print(len(bom.components), "components")


def purls(path):
    from packageurl import PackageURL

    for component in json.load(open(path))["components"]:
        if "purl" in component:
            url = PackageURL.from_string(component["purl"])
            assert component["version"] in (url.version, None) or url.type == "oci", url
            # A reader that writes it again and reads that finds the same.
            assert PackageURL.from_string(url.to_string()) == url
            print(url.type, url.namespace, url.name, url.version, sorted(url.qualifiers.items()))


def statement(path):
    from google.protobuf.json_format import Parse, ParseDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    text = open(path).read()
    parsed = Parse(text, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    # Refuses fields that SLSA does not know; the ones that it requires are there.
    predicate = ParseDict(json.loads(text)["predicate"], provenance_pb2.Provenance())
    assert parsed.predicate_type == "https://slsa.dev/provenance/v1"
    definition = predicate.build_definition
    assert ":" in definition.build_type and definition.HasField("external_parameters")
    assert ":" in predicate.run_details.builder.id
    for dependency in definition.resolved_dependencies:
        assert len(dependency.digest["sha256"]) == 64, dependency
    print(len(parsed.subject), "subjects")


def envelope(path, key, keyid):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    public = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(open(key, "rb").read()), keyid)
    parsed = Envelope.from_dict(json.load(open(path)))
    accepted = parsed.verify([public], 1)
    assert list(accepted) == [keyid], accepted
    json.loads(parsed.payload)
    print("signed by", keyid)


def expressions(path):
    from license_expression import get_spdx_licensing

    licensing = get_spdx_licensing()
    for line in open(path).read().splitlines():
        info = licensing.validate(line)
        unknown = [symbol for symbol in info.invalid_symbols if not symbol.startswith("LicenseRef-")]
        assert not unknown, (line, unknown, info.errors)
    print("expressions accepted")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
