"""The regions that genes touch: the other ends (pCREs) of promoter contacts.

A region that several genes touch is stored once. Its bins lie in one ragged axis, region after
region: `ceil(width / bin_bp)` bins each, the last one over the bases that remain.
"""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing, sort_chromosomes

REGION_BIN_BP = 100
CONTACT_COLUMNS = ("gene_id", "chrom", "start", "end", "score")


@dataclasses.dataclass(frozen=True)
class Regions:
    """The distinct regions that genes of a store touch in one cell, and which gene touches which.

    Attributes:
        table: one row a region, columns `chrom`, `start`, `end` (0-based, half-open, in bp),
            `first` (index of its first bin in the ragged axis) and `bins` (how many it has); in
            natural order of chromosomes, then by start and end.
        contacts: one row a contact, columns `gene` (row of the store's gene table), `rank` (0 is
            the gene's best), `region` (row of `table`) and `score`; by gene, then rank.
    """

    table: pd.DataFrame
    contacts: pd.DataFrame

    @classmethod
    def from_contacts(
        cls, contacts: pd.DataFrame, genes: pd.DataFrame, bin_bp: int = REGION_BIN_BP
    ) -> "Regions":
        """Lay out the regions of a contacts table.

        Args:
            contacts: columns `CONTACT_COLUMNS`, one row a contact, the best of each gene first.
                Those of genes that are not in `genes` are left out, with the regions that no
                other gene touches: such genes may have been left out because they lack data.
            genes: the store's gene table, of which `gene_id` is read.
            bin_bp: width of a bin, in bp.

        Raises:
            InputError: if a region is empty.
        """
        kept = contacts[contacts.gene_id.isin(genes.gene_id)]
        empty = kept[kept.start >= kept.end]
        if len(empty):
            raise InputError(
                "contacts",
                f"{len(empty)} regions without a base ({listing(empty.gene_id)})",
                "intervals whose start lies below their end",
                "correct the intervals",
            )
        place = ["chrom", "start", "end"]
        table = kept[place].drop_duplicates()
        number = {name: i for i, name in enumerate(sort_chromosomes(table.chrom))}
        order = np.lexsort((table.end, table.start, table.chrom.map(number).astype(int)))
        bins = -(-(table.end - table.start) // bin_bp)
        table = table.assign(bins=bins).iloc[order].reset_index(drop=True)
        table.insert(3, "first", table.bins.cumsum() - table.bins)

        gene = pd.Index(genes.gene_id).get_indexer(pd.Index(kept.gene_id))
        region = pd.MultiIndex.from_frame(table[place]).get_indexer(
            pd.MultiIndex.from_frame(kept[place])
        )
        links = pd.DataFrame({"gene": gene, "region": region, "score": kept.score.to_numpy(float)})
        links = links.sort_values("gene", kind="stable", ignore_index=True)
        links.insert(1, "rank", links.groupby("gene").cumcount())
        return cls(table, links)

    @property
    def bins(self) -> int:
        """Length of the ragged axis."""
        return int(self.table.bins.sum())

    def by_gene(
        self, genes: int, most: int
    ) -> tuple[Int[np.ndarray, "G N"], Float[np.ndarray, "G N"]]:
        """The best `most` (N) contacts of each of the store's `genes` (G) genes.

        Returns:
            Rows of `table` `[G N]`, int32, -1 where a gene has no more contacts; and their scores
            `[G N]`, float32, 0 there.
        """
        kept = self.contacts[self.contacts["rank"] < most]
        where = kept.gene.to_numpy(), kept["rank"].to_numpy()
        region = np.full((genes, most), -1, np.int32)
        score = np.zeros((genes, most), np.float32)
        region[where], score[where] = kept.region, kept.score
        return region, score

    def holding(self, bins: Bool[np.ndarray, "bin"]) -> list[str]:
        """The regions, as `chrom:start-end`, in which any of these bins lie.

        Args:
            bins: `[bin]`, true for some of the ragged axis.
        """
        row = np.repeat(np.arange(len(self.table)), self.table.bins)
        held = self.table.iloc[np.unique(row[bins])]
        return [f"{r.chrom}:{r.start}-{r.end}" for r in held.itertuples()]

    def sha256(self) -> str:
        """Checksum of both tables."""
        text = self.table.to_csv(index=False) + self.contacts.to_csv(index=False)
        return hashlib.sha256(text.encode()).hexdigest()
