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
_ALIKE = 10  # genes that regions are shuffled among


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

    def shuffled(self, genes: pd.DataFrame) -> "Regions":
        """The same regions, each gene touching those of another gene instead of its own: a control
        that keeps what regions look like and takes away whose they are.

        Genes are exchanged among the ten that are most alike in the number of regions, then in the
        median distance from the TSS to their middles; as far as twenty tries find, with a gene of
        another chromosome, since neighbours touch the same regions. Scores go with the regions.
        Always the same exchange for the same contacts. A gene that alone has contacts keeps them.

        Args:
            genes: the store's gene table, of which `chrom` and `tss` are read.
        """
        links = self.contacts
        place = self.table.iloc[links.region]
        gene = genes.iloc[links.gene]
        middle = (place.start.to_numpy() + place.end.to_numpy()) / 2
        far = np.abs(middle - gene.tss.to_numpy())
        far[place.chrom.to_numpy() != gene.chrom.to_numpy()] = np.inf
        each = pd.DataFrame({"gene": links.gene, "far": far}).groupby("gene").far
        alike = each.agg(["size", "median"]).sort_values(["size", "median"], kind="stable")
        blocks = np.array_split(alike.index.to_numpy(copy=True), max(1, len(alike) // _ALIKE))
        rng, chrom = np.random.default_rng(0), genes.chrom.to_numpy()
        taker = pd.Series(0, alike.index)
        for block in blocks:
            circles = [rng.permutation(block) for _ in range(2 * _ALIKE)]
            own = [(chrom[circle] == chrom[np.roll(circle, 1)]).sum() for circle in circles]
            circle = circles[int(np.argmin(own))]
            taker[circle] = np.roll(circle, 1)
        links = links.assign(gene=taker[links.gene].to_numpy())
        return Regions(self.table, links.sort_values(["gene", "rank"], ignore_index=True))

    def holding(self, bins: Bool[np.ndarray, "bin"]) -> list[str]:
        """The regions, as `chrom:start-end`, in which any of these bins lie.

        Args:
            bins: `[bin]`, true for some of the ragged axis.
        """
        row = np.repeat(np.arange(len(self.table)), self.table.bins)
        held = self.table.iloc[np.unique(row[bins])]
        return [f"{r.chrom}:{r.start}-{r.end}" for r in held.itertuples()]

    def bins_at(self, bin_bp: int) -> Int[np.ndarray, " regions"]:
        """How many bins of this width each region has."""
        return -(-(self.table.end - self.table.start).to_numpy() // bin_bp)

    def apart(
        self, means: Float[np.ndarray, " bins"], bin_bp: int, factor: int
    ) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
        """Ragged means with every region at a multiple of `factor`, and the share of each bin.

        So that merging `factor` bins merges bins of one region alone. A last bin that is not full
        has less than 1, what lies between regions 0.
        """
        first, fine = self.table["first"].to_numpy(), self.table.bins.to_numpy()
        room = -(-fine // factor) * factor
        place = np.repeat(np.cumsum(room) - room - first, fine) + np.arange(self.bins)
        x, share = np.zeros((2, int(room.sum())), np.float32)
        x[place], share[place] = means, 1
        width = (self.table.end - self.table.start).to_numpy()
        share[place[first + fine - 1]] = (width - (fine - 1) * bin_bp) / bin_bp  # of a last bin
        return x, share

    def sha256(self) -> str:
        """Checksum of both tables."""
        text = self.table.to_csv(index=False) + self.contacts.to_csv(index=False)
        return hashlib.sha256(text.encode()).hexdigest()
