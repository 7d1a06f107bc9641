"""The entry point of recommend: joins configuration, hop clients, recommender and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext

from chassis.auth.tokens import TokenFile
from chassis.call import Handler
from chassis.hop.client import Hop, HopClient
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.wire.transport import HttptoolsTransport
from functions.recommend.handler import SOURCE, Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.outbox import Outbox
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import Settings
from functions.recommend.shadow import Shadow
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)
service_tokens = TokenFile(settings.service_token_file).check() if settings.service_token_file else None


def make_hop(name: str, url: str, transport: HttptoolsTransport, *, impatient: bool = False) -> HopClient:
    """Return a client for another function."""
    token = service_tokens.first if service_tokens else None
    hop = HopClient(name, url, transport=transport, token=token, hedge=settings.hedge, impatient=impatient)
    service.exposition.add(hop.instruments())
    return hop


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open the connection pool that both hops share, and refresh the popular list until the handler closes."""
    async with aclosing(HttptoolsTransport(max_connections=settings.max_connections)) as transport:
        rank_items: Hop = make_hop("rank_items", settings.rank_items_url, transport)
        shadow = None
        if settings.shadow:
            candidate = make_hop("rank_items_shadow", settings.shadow.url, transport)
            rank_items = shadow = Shadow(rank_items, candidate, share=settings.shadow.share)
        ranking = RankingClient(rank_items, batch=settings.coalesce_ranking)
        # An answer without features, early, is better than a late one. rank_items is different: under a rush its answers
        # become much slower before the autoscaler helps, and they are still worth the wait.
        extract_features = make_hop("extract_features", settings.extract_features_url, transport, impatient=True)
        features = FeaturesClient(extract_features, batch=settings.coalesce_features)
        popular = PopularList(ranking, settings.popular)
        outbox = Outbox(settings.sink, source=SOURCE, transport=transport) if settings.sink else None
        optional = [part for part in (outbox, shadow) if part]
        shadowing = aclosing(shadow) if shadow else nullcontext()
        async with popular.kept_fresh(), outbox.sending() if outbox else nullcontext(), shadowing:
            recommender = Recommender(
                features=features, ranking=ranking, popular=popular, exploration=settings.exploration
            )
            instruments = [each for part in optional for each in part.instruments()]
            service.exposition.add([*recommender.instruments(), *instruments])
            yield Recommend(recommender, outbox=outbox)


service = Service("recommend", open_handler, settings=settings.serving, pages=pages_of("recommend"), cors=settings.cors)
handle = as_function(service)
