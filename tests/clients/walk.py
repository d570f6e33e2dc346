"""From a DID to the first call log, with clients generated from both documents.

Prints `CALL <number>` when a call can come, and expects one then.
"""

import os
import time
from typing import TypeVar

import capconduit_admin as admin_side
import capconduit_seller as seller_side
from capconduit_admin.api.auth import create_token, login
from capconduit_admin.api.clients import create_client
from capconduit_admin.api.logs import get_call_log
from capconduit_admin.api.users import create_user
from capconduit_admin.models import (
    Account,
    CallLogDetail as AnyCallLog,
    ClientDetail,
    Login,
    NewAor,
    NewClient,
    NewEndpoint,
    NewPjsip,
    NewToken,
    NewUser,
    Role,
    SignedIn,
    TokenWithSecret,
)
from capconduit_seller.api.campaigns import create_campaign, create_link, get_campaign, set_campaign_dids
from capconduit_seller.api.dids import create_did
from capconduit_seller.api.logs import get_my_call_log, list_my_call_logs
from capconduit_seller.models import (
    CallLog,
    CallLogDetail,
    CallStatus,
    CampaignDetail,
    Did,
    DidSet,
    Link,
    LogsPage,
    NewCampaign,
    NewDid,
    NewLink,
    Problem,
    Strategy,
)

URL = os.environ["CAPCONDUIT_URL"]
NUMBER = os.environ["CAPCONDUIT_NUMBER"]
PASSWORD = "a seller's password"

T = TypeVar("T")


def right(kind: type[T], answer: object) -> T:
    """The answer, which must be of this kind."""
    assert isinstance(answer, kind), answer
    return answer


def sign_in(username: str, password: str) -> str:
    """Signs in by cookie, and makes a token for what follows."""
    with admin_side.Client(base_url=URL) as client:
        answer = right(SignedIn, login.sync(client=client, body=Login(username=username, password=password)))
        assert answer.user.username == username
        (cookie,) = client.get_httpx_client().cookies.jar
    session = f"{cookie.name}={cookie.value}"
    with admin_side.AuthenticatedClient(URL, token=session, prefix="", auth_header_name="Cookie") as client:
        return right(TokenWithSecret, create_token.sync(client=client, body=NewToken(name="walk"))).token


admin_token = sign_in("admin", os.environ["CAPCONDUIT_PASSWORD"])
with admin_side.AuthenticatedClient(base_url=URL, token=admin_token) as admin:
    user = NewUser(username="py-seller", email="py@example.com", password=PASSWORD, role=Role.USER)
    right(Account, create_user.sync(client=admin, body=user))
    pjsip = NewPjsip(
        endpoint=NewEndpoint(id="py-client", aors="py-client", context="nowhere"),
        aor=NewAor(id="py-client", contact=os.environ["CAPCONDUIT_CONTACT"]),
    )
    new = NewClient(client_identifier="py-client", name="The client", pjsip=pjsip)
    buyer = right(ClientDetail, create_client.sync(client=admin, body=new))

    with seller_side.AuthenticatedClient(base_url=URL, token=sign_in("py-seller", PASSWORD)) as seller:
        did = right(Did, create_did.sync(client=seller, body=NewDid(number=NUMBER)))
        again = right(Problem, create_did.sync(client=seller, body=NewDid(number=NUMBER)))
        assert again.status == 409 and "number" in again.to_dict()["errors"], again

        new_campaign = NewCampaign(name="Solar", routing_strategy=Strategy.PRIORITY, dial_timeout_seconds=20)
        campaign = right(CampaignDetail, create_campaign.sync(client=seller, body=new_campaign))
        dids = DidSet(did_ids=[did.id])
        right(CampaignDetail, set_campaign_dids.sync(campaign.id, client=seller, body=dids))
        link = NewLink(client_id=buyer.id, max_concurrency=1, forwarding_priority=1, weight=1, daily_cap=5)
        right(Link, create_link.sync(campaign.id, client=seller, body=link))
        print("CALL", NUMBER, flush=True)

        deadline = time.monotonic() + 20
        items: list[CallLog] = []
        while not items and time.monotonic() < deadline:
            time.sleep(0.05)
            found = list_my_call_logs.sync(
                client=seller, campaign_id=campaign.id, call_status=CallStatus.ANSWERED
            )
            items = right(LogsPage, found).items
        assert items, "there is no call log"
        log = right(CallLogDetail, get_my_call_log.sync(items[0].id, client=seller))
        assert log.did and log.did.number == NUMBER, log
        assert log.client and log.client.id == buyer.id, log
        assert log.attempts[0].result.value == "answered", log
        assert right(AnyCallLog, get_call_log.sync(log.id, client=admin)).id == log.id
        linked = right(CampaignDetail, get_campaign.sync(campaign.id, client=seller)).client_settings[0]
        assert linked.current_total_calls == 1, linked
print("DONE")
