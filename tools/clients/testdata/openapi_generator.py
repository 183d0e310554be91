"""The tour with a client that openapi-generator generated. Arguments: the URL of the service, and a PNG."""

import sys

from openapi_client import ApiClient, AvatarsApi, Configuration, NewUser, UserChange, UsersApi
from openapi_client.exceptions import ApiException

url, file = sys.argv[1:]
with open(file, "rb") as f:
    picture = f.read()


def problem(status, call, *args, **kwargs):
    """The type of the problem that a call must raise."""
    try:
        call(*args, **kwargs)
    except ApiException as e:
        assert e.status == status, e
        return e.data.type
    raise AssertionError(f"no error, want {status}")


with ApiClient(Configuration(host=url)) as client:
    users, avatars = UsersApi(client), AvatarsApi(client)
    ada = NewUser(name="Ada", email="ada@generator.example")
    created = users.create_user(ada)
    assert created.name == "Ada", created
    assert problem(409, users.create_user, ada) == "urn:roster:problem:email-taken"

    uploaded = avatars.upload_avatar(("ada.png", picture), email=ada.email)
    assert uploaded.avatar_url, uploaded
    assert avatars.put_avatar(created.id, picture).avatar_url != uploaded.avatar_url

    users.create_user(NewUser(name="Grace", email="grace@generator.example"))
    page = users.list_users_with_http_info(limit=1)
    assert len(page.data) == 1 and 'rel="next"' in page.headers["Link"], page
    assert avatars.get_avatar(created.id) == picture
    assert avatars.get_thumbnail(created.id)

    etag = users.get_user_with_http_info(created.id).headers["Etag"]  # as Go spells it
    change = UserChange(name="Ada King")
    assert users.rename_user(created.id, change, if_match=etag).name == "Ada King"
    kind = problem(412, users.rename_user, created.id, change, if_match=etag)
    assert kind == "urn:roster:problem:precondition-failed", kind
    users.delete_user(created.id)
    assert problem(404, users.get_user, created.id) == "urn:roster:problem:not-found"
