# The version that EKS recommends for the cluster's version, so that the add-ons
# follow when the cluster is upgraded.
data "aws_eks_addon_version" "this" {
  for_each = toset(["coredns", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni"])

  addon_name         = each.key
  kubernetes_version = var.kubernetes_version
}

# Daemon sets: they need no node to be installed, and no node is ready without
# them.
resource "aws_eks_addon" "before_nodes" {
  for_each = {
    eks-pod-identity-agent = null
    kube-proxy             = null
    # Without this the cluster accepts network policies and ignores them.
    vpc-cni = jsonencode({ enableNetworkPolicy = "true" })
  }

  cluster_name         = aws_eks_cluster.this.name
  addon_name           = each.key
  addon_version        = data.aws_eks_addon_version.this[each.key].version
  configuration_values = each.value

  # EKS starts each cluster with unmanaged copies of vpc-cni, kube-proxy and
  # coredns: the add-on takes them over.
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  tags = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_eks_pod_identity_association.vpc_cni]
}

# Deployments: they are healthy once their pods run somewhere.
resource "aws_eks_addon" "after_nodes" {
  for_each = toset(["coredns", "metrics-server"])

  cluster_name  = aws_eks_cluster.this.name
  addon_name    = each.key
  addon_version = data.aws_eks_addon_version.this[each.key].version

  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  tags = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_eks_node_group.this]
}

# The pod network may change network interfaces; with a role of its own, the
# nodes may not. EKS hands the role to pods as they are created, so that the
# association is there before the first one.
resource "aws_eks_pod_identity_association" "vpc_cni" {
  cluster_name    = aws_eks_cluster.this.name
  namespace       = "kube-system"
  service_account = "aws-node"
  role_arn        = aws_iam_role.vpc_cni.arn

  tags = { Name = "${var.name}-vpc-cni" }

  depends_on = [aws_iam_role_policy_attachment.vpc_cni]
}

resource "aws_iam_role" "vpc_cni" {
  name        = "${var.name}-vpc-cni"
  description = "What the pod network of ${var.name} may do on AWS"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = aws_eks_cluster.this.arn
          "aws:RequestTag/kubernetes-namespace"       = "kube-system"
          "aws:RequestTag/kubernetes-service-account" = "aws-node"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "vpc_cni" {
  role       = aws_iam_role.vpc_cni.name
  policy_arn = "${local.policies}/AmazonEKS_CNI_Policy"
}
